"""[[images]], [[apps]] and [prune]: valid values, and one message for each mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from provision.engine.catalogue import load_inventory as load
from provision.errors import InventoryError
from provision.inventory import Inventory
from provision.inventory.secrets import SecretSource
from provision.inventory.tables.apps import App, PublishedPort
from provision.inventory.tables.images import Image, Prune

IMAGE = '[[images]]\nname = "sammy/hello"\ncontext = "hello"\n'
APP = '[[apps]]\nname = "hello"\nimage = "sammy/hello:1.0"\n'

# the text from line 8 on, the line, the key, and a part of the message
MISTAKES = [
    ('[[images]]\nname = "sammy/Hello"\ncontext = "x"\n', 9, "images[0].name", "in lower case: expected 'hello'"),
    ('[[images]]\nname = "sammy/hello:1"\ncontext = "x"\n', 9, "images[0].name", 'write tags = ["1"]'),
    ('[[images]]\nname = "docker.io/hello"\ncontext = "x"\n', 9, "images[0].name", "docker.io/USER/NAME"),
    ('[[images]]\nname = "sammy/hello"\n', 8, "images[0].context", "is missing"),
    (IMAGE + 'tags = ["1.0", "1+0"]\n', 11, "images[0].tags[1]", "expected a tag of letters"),
    (IMAGE + 'tags = ["1", "1"]\n', 11, "images[0].tags[1]", "listed twice"),
    (IMAGE + "tags = []\n", 11, "images[0].tags", "expected"),
    (IMAGE + 'dockerfile = "../Dockerfile"\n', 11, "images[0].dockerfile", "inside the context"),
    (IMAGE + 'dockerfile = "D"\ntemplate = "go"\n', 12, "images[0].template", "not both"),
    (IMAGE + "options = {a = 1}\n", 11, "images[0].options", "options need a template"),
    (
        IMAGE + 'template = "go"\noptions = {password = "x"}\n',
        12,
        "images[0].options.password",
        "a secret is not allowed here",
    ),
    (IMAGE + 'build_args = {TOKEN = "x"}\n', 11, "images[0].build_args.TOKEN", "a secret is not allowed here"),
    (IMAGE + 'build_args = {KEY = {env = "X"}}\n', 11, "images[0].build_args.KEY", "a secret is not allowed here"),
    (
        IMAGE + 'build_args = {INDEX = "https://anna:canary@pypi.example.com/simple"}\n',
        11,
        "images[0].build_args.INDEX",
        "a URL with a password is not allowed here",
    ),
    (IMAGE + "build_args = {N = 1}\n", 11, "images[0].build_args.N", "expected a string"),
    (IMAGE + 'build_args = {"A-B" = "1"}\n', 11, "images[0].build_args.A-B", "name of an ARG"),
    (IMAGE + 'target = "--x"\n', 11, "images[0].target", "name of a stage"),
    (IMAGE + IMAGE, 11, "images[1].tags", "images[0] is sammy/hello:latest, too"),
    (IMAGE + "login = {username = 'u'}\n", 11, "images[0].login.password", "is missing"),
    ('[[apps]]\nname = "x y"\nimage = "a"\n', 9, "apps[0].name", "expected a container's name"),
    ('[[apps]]\nname = "hello"\nimage = "a:b:c"\n', 10, "apps[0].image", "expected"),
    (APP + 'ports = ["5001"]\n', 11, "apps[0].ports[0]", "expected HOST:CONTAINER"),
    (APP + 'ports = ["70000:1"]\n', 11, "apps[0].ports[0]", "expected HOST:CONTAINER"),
    (APP + 'environment = {"A B" = "x"}\n', 11, "apps[0].environment", "expected a variable's name"),
    (APP + 'environment = {A = "x\\ny"}\n', 11, "apps[0].environment.A", "one line"),
    (APP + "environment = {A = 1}\n", 11, "apps[0].environment.A", "expected a string or a secret"),
    (APP + 'volumes = ["data"]\n', 11, "apps[0].volumes[0]", "NAME:/path"),
    (APP + 'volumes = ["../data:/data"]\n', 11, "apps[0].volumes[0]", "NAME:/path"),
    (APP + 'restart = "sometimes"\n', 11, "apps[0].restart", "unless-stopped"),
    (APP + 'health = {command = "x", interval = "30"}\n', 11, "apps[0].health.interval", "expected a duration"),
    (APP + "check = {seconds = 5}\n", 11, "apps[0].check", "url or command"),
    (APP + 'check = {url = "http://x", command = ["y"]}\n', 11, "apps[0].check.command", "one of them"),
    (APP + 'check = {url = "localhost:5001"}\n', 11, "apps[0].check.url", "expected a URL"),
    (APP + 'check = {url = "http://x", seconds = 0}\n', 11, "apps[0].check.seconds", "at least 1"),
    (APP + APP, 12, "apps[1].name", "apps[0] has the name 'hello', too"),
    ("[prune]\ndays = -1\n", 9, "prune.days", "at least 0"),
]


@pytest.mark.parametrize(("more", "line", "key", "why"), MISTAKES)
def test_mistakes(write_estate: Callable[..., Path], more: str, line: int, key: str, why: str) -> None:
    """One message with file, line, key and what is expected."""
    with pytest.raises(InventoryError) as refusal:
        load([write_estate(more)])
    text = str(refusal.value)
    assert f"inventory.toml:{line}: {key}" in text
    assert why in text
    assert text.count("\n") == 1, text
    assert "canary" not in text


PIPELINE = '[projects."sammy/Hello".pipeline]\ntemplate = "registry"\ntest = "true"\n'
HUB = '[projects."sammy/x".pipeline]\ntemplate = "dockerhub"\nimage = "sammy/hello"\n'
OWN = '[registry]\nexternal_url = "https://gitlab.example.com:5555"\n'


@pytest.mark.parametrize(
    ("text", "project"),
    [
        (IMAGE + PIPELINE, "sammy/Hello"),
        (IMAGE + 'tags = ["1.0", "latest"]\n' + PIPELINE, "sammy/Hello"),
        (IMAGE.replace("sammy/", "gitlab.example.com:5555/sammy/") + PIPELINE + OWN, "sammy/Hello"),
        (IMAGE.replace("sammy/hello", "sammy/other") + PIPELINE + 'image = "sammy/other"\n', "sammy/Hello"),
        (IMAGE.replace("sammy/", "docker.io/sammy/") + HUB, "sammy/x"),
    ],
)
def test_a_tag_has_one_writer(estate: Callable[..., Inventory], text: str, project: str) -> None:
    """An image that the pipeline of a project releases is refused, naming both places."""
    with pytest.raises(InventoryError) as caught:
        estate(text)
    assert "images[0].tags" in caught.value.text
    assert f':latest is released by projects."{project}".pipeline: a tag has one writer' in caught.value.text


@pytest.mark.parametrize(
    "text",
    [
        IMAGE + 'tags = ["1.0"]\n' + PIPELINE,
        IMAGE + "push = false\n" + PIPELINE,
        IMAGE.replace("sammy/hello", "sammy/hello/web") + PIPELINE,
        IMAGE + PIPELINE.replace('"registry"', '"mine"'),
        IMAGE + HUB,
        IMAGE.replace("sammy/", "docker.io/sammy/")
        + HUB
        + '[projects."sammy/x".variables]\nDOCKERHUB_REGISTRY = "r.example.com"\n',
    ],
)
def test_other_tags_and_names_have_other_writers(estate: Callable[..., Inventory], text: str) -> None:
    """Another tag, an image that is not pushed, another name, a template of one's own, another registry."""
    assert estate(text).hosts[0].settings.all(Image)


def test_images(estate: Callable[..., Inventory], tmp_path: Path) -> None:
    """The context is relative to the inventory; the tag is latest; it is pushed."""
    (image,) = estate(IMAGE).hosts[0].settings.all(Image)
    assert (image.context, image.tags, image.push) == (tmp_path / "hello", ("latest",), True)


def test_apps(estate: Callable[..., Inventory]) -> None:
    """A table with one key named env, command or file is a table there. Its values may be secrets."""
    (app,) = (
        estate(
            APP
            + 'ports = ["5001:5000", "127.0.0.1:53:53/udp"]\n'
            + 'environment = {env = "prod"}\ncheck = {command = ["a", "b"]}\nhealth = {command = "x"}\n'
        )
        .hosts[0]
        .settings.all(App)
    )
    assert app.environment == {"env": "prod"}
    assert app.check is not None
    assert app.check.command == ("a", "b")
    assert app.published == (PublishedPort("", 5001, 5000, "tcp"), PublishedPort("127.0.0.1", 53, 53, "udp"))


def test_secrets_of_apps(estate: Callable[..., Inventory]) -> None:
    """They are recognized by their table or by their name."""
    (app,) = (
        estate(APP + 'environment = {KEY = {env = "X"}, DB_PASSWORD = "y", MODE = "z"}\n').hosts[0].settings.all(App)
    )
    kinds = {name: type(value) for name, value in app.environment.items()}
    assert kinds == {"KEY": SecretSource, "DB_PASSWORD": SecretSource, "MODE": str}


def test_two_images_may_differ_by_their_tags(estate: Callable[..., Inventory]) -> None:
    """Two images with one name and different tags are valid."""
    more = IMAGE + 'tags = ["dev"]\ntarget = "dev"\n'
    assert len(estate(IMAGE + more).hosts[0].settings.all(Image)) == 2


def test_nothing_is_pruned_before_two_weeks(estate: Callable[..., Inventory]) -> None:
    """Without the table its defaults apply."""
    prune = estate().hosts[0].settings[Prune]
    assert (prune.days, prune.timer) == (14, False)

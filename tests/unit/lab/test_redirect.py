"""What leads out of the lab is replaced in all tables and keys: found by the fields' types, with canaries."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
import tomlkit
from pydantic import Field

from provision.engine.catalogue import Catalogue
from provision.engine.catalogue import load_inventory as load
from provision.inventory import Settings, Tables
from provision.inventory.problems import tables_in
from provision.inventory.secrets import Origin, SecretSource
from provision.inventory.tables.apps import App
from provision.inventory.tables.base import Table, options_of
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.host import Ssh
from provision.inventory.tables.images import Image
from provision.inventory.tables.projects import Project
from provision.inventory.tables.registry import Registry
from provision.inventory.tables.runners import Runner
from provision.inventory.tree import merge
from provision.url import Url
from provision_lab import Lab, LabError, LabHost, rehearsal
from provision_lab.redirect import FILES, NOWHERE, Redirect, plain
from tests.support.rehearsals import rehearsed

CANARY = "canary-of-production"
URL = Url.parse("https://production.example.com:8443/x")
SHIPPED = Catalogue.of().tables
LEFT = {"/production/context", "/production/key", "/production/source"}  # of Image.context, Mirror.key, Project.source
URL_FIELDS = {
    *("Acme.directory", "Check.url", "Gitlab.external_url", "Mirror.url", "Registry.external_url"),
    *("Runner.clone_url", "Runner.url", "S3.regionendpoint", "Image.token_server", "App.token_server"),
}


def below(model: type[Table]) -> set[type[Table]]:
    """A table and all tables below it."""
    fields = model.model_fields.values()
    return {model}.union(*(below(one) for field in fields for one in tables_in(field.annotation)))


def fields_of_type(kind: type) -> set[tuple[type[Table], str]]:
    """The fields of all shipped tables that may have a value of this type."""
    models = set().union(*map(below, SHIPPED))
    return {(m, name) for m in models for name, field in m.model_fields.items() if kind in leaves(field.annotation)}


def leaves(annotation: Any) -> set[Any]:
    """The types inside Annotated, unions, arrays and mappings."""
    inner = [one for one in get_args(annotation) if not isinstance(one, str)] if get_origin(annotation) else []
    return {annotation}.union(*map(leaves, inner))


def source() -> SecretSource:
    """A secret that must not be fetched."""
    return SecretSource("command", ("cat", CANARY), Origin())


def filled(annotation: Any, name: str) -> Any:
    """A value of a type with canaries wherever it can have one; None where it can have none."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return filled(arguments[0], name)
    if origin in (Union, UnionType):
        found = (filled(one, name) for one in arguments if one is not type(None))
        return next((one for one in found if one is not None), None)
    if origin is tuple:
        one = filled(arguments[0], name)
        return None if one is None else (one, one)
    if origin is dict:
        one = filled(arguments[1], name)
        return None if one is None else {"key": one}
    if annotation is Any:
        urls = [f"https://user:{CANARY}@proxy.example.com:3128", f"--env=API_TOKEN={CANARY}"]
        return {"password": source(), "nested": [{"token": source(), "urls": urls}], "secret_key": 12345}
    values = {SecretSource: source(), Path: Path("/production", name), Url: URL}
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return construct(annotation)
    return values.get(annotation) if isinstance(annotation, type) else None


def construct(table: type[Table]) -> Table:
    """A table with every field filled, without its validation."""
    values = {name: filled(field.annotation, name) for name, field in table.model_fields.items()}
    given = {name: value for name, value in values.items() if value is not None}
    names = {"name": "production.example.com/a/b", "image": "production.example.com/a/b:1"}
    if table is App:
        given["environment"] = {"KEY": source(), "DATABASE": f"postgres://u:{CANARY}@production.example.com/x"}
    given |= {name: names[name] for name in names if name in table.model_fields and name not in given}
    return table.model_construct(**given)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab as if it were up, with its secrets."""
    monkeypatch.setenv("PROVISION_LAB_STATE", str(tmp_path / "state"))
    lab = Lab("x", [LabHost("git", "198.18.7.10", gitlab=True)])
    lab.folder.mkdir(parents=True)
    return lab


def leaf_values(value: Any) -> list[Any]:
    """All values in nested data."""
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in leaf_values(one)]
    return [leaf for one in value for leaf in leaf_values(one)] if isinstance(value, list) else [value]


def check(table: type[Table], lab: Lab) -> dict[str, Any]:
    """The redirected table. It has no canary, no secret of the inventory, no file and no URL of production."""
    one, options = construct(table), options_of(table)
    value = {"once": one, "array": (one,), "named": {"a/b": one}}[options.occurs]
    settings = Settings({table: value})
    planted = [leaf for leaf in leaf_values(plain(value)) if isinstance(leaf, SecretSource)]
    assert bool(planted) == fields_with_secrets(table)
    over = Redirect(lab, {}, frozenset({"git"}), gitlab=True).changes(settings)
    found = merge({options.name: plain(value)}, over)
    for leaf in leaf_values(found):
        assert not isinstance(leaf, SecretSource), over
        assert CANARY not in str(leaf)
        assert "/production/" not in str(leaf) or str(leaf) in LEFT
        assert str(URL) not in str(leaf) or options.name == "apt"
        assert leaf != 12345
    assert tomlkit.dumps(over) is not None
    return found


def fields_with_secrets(table: type[Table]) -> bool:
    """Whether a table may have secrets."""
    return any(
        {SecretSource, Any} & leaves(field.annotation) for one in below(table) for field in one.model_fields.values()
    )


@pytest.mark.parametrize("table", list(SHIPPED), ids=lambda table: options_of(table).name)
def test_every_field_that_may_hold_a_secret(table: type[Table], lab: Lab) -> None:
    """Each shipped table with all its fields filled: nothing of production is left."""
    check(table, lab)


class Deep(Table):
    """A part of a table."""

    key_file: Path
    pin: SecretSource


class Backup(Table, name="backup_job"):
    """[backup_job]: a table of one's own."""

    password: str = Field(default="x")
    """Plain text by its type, secret by its name."""
    parts: dict[str, tuple[Deep, ...]] = Field(default_factory=dict)
    """Tables."""
    at: Url | None = None
    """Where."""


def test_tables_of_ones_own(lab: Lab) -> None:
    """Secrets, private files and URLs of a table that the lab does not know."""
    found = check(Backup, lab)["backup_job"]
    assert found["parts"]["key"][0]["key_file"] == str(lab.folder / "privkey.pem")
    assert found["at"] == f"https://{NOWHERE}:8443/x"
    settings, _ = Tables([Backup]).settings({"backup_job": {"password": "hunter2"}})
    assert Redirect(lab, {}, frozenset(), gitlab=True).changes(settings) == {"backup_job": {"password": "rehearsal"}}


@pytest.mark.parametrize("internet", [False, True])
@pytest.mark.parametrize("given", ["http://me:canary@proxy.example.com:3128", source()])
def test_proxies(lab: Lab, given: object, internet: bool) -> None:
    """No proxy is used, also not with the internet: it would lead requests for the lab's GitLab to production's."""

    class Proxy(Table, name="proxy"):
        """[proxy]: the proxy."""

        http: str | SecretSource = ""

    lab._record = dataclasses.replace(lab._record, internet=internet)
    settings = Settings({Proxy: Proxy.model_construct(http=given)})
    assert Redirect(lab, {}, frozenset(), gitlab=True).changes(settings) == {"proxy": {"http": ""}}


def test_another_type_is_refused(lab: Lab) -> None:
    """It might hold a secret."""

    class Odd(Table):
        """A table."""

        value: Any = None

    with pytest.raises(LabError, match="a setting of the type object cannot be rehearsed"):
        Redirect(lab, {}, frozenset(), gitlab=True).changes(Settings({Odd: Odd.model_construct(value=object())}))


def test_every_local_file_and_every_url_is_decided_on() -> None:
    """A new field of these types needs a decision: a file of the lab, or the inventory's own."""
    assert fields_of_type(Path) == set(FILES)
    found = {f"{model.__name__}.{name}" for model, name in fields_of_type(Url)}
    assert found == URL_FIELDS


ESTATE = """
[ssh]
become_password = { command = ["touch", "SUDO"] }
identity_file = "~/production_key"
proxy_jump = "bastion.example.com"
[hosts.git]
address = "203.0.113.10"
groups = ["gitlab"]
[hosts."ci-[1:2]"]
address = "203.0.113.[18:19]"
groups = ["runners"]
[groups.runners.docker.daemon]
proxies = { http-proxy = "http://me:canary-proxy@proxy.example.com:3128" }
[gitlab]
external_url = "https://git.example.com"
api_token = { env = "CANARY" }
[gitlab.servers."https://other.example.com"]
api_token = "canary-other-server"
[gitlab.settings]
gitlab_rails.smtp_password = "canary-smtp"
prometheus.listen_address = "203.0.113.10:9090"
[registry]
external_url = "https://git.example.com:5555"
[[images]]
name = "sammy/own"
context = "."
login = { username = "robot", password = { command = ["touch", "OWN"] } }
[[images]]
name = "docker.io/sammy/hub"
context = "."
login = { username = "robot", password = { command = ["touch", "HUB"] } }
[[apps]]
name = "web"
image = "registry.example.org/a/b:1"
token_server = "https://tokens.example.org"
login = { username = "robot", password = "canary-app" }
environment = { PORT = "8080", DB = "postgres://u:canary-db@db.example.com/x", KEY = { env = "CANARY" }, MODE = "production" }
[projects."sammy/own"]
wait = true
source = "source"
variables.PLAIN = "canary-plain-1"
variables.SECRET = { command = ["touch", "VARIABLE"] }
variables.LEVEL = "debug"
variables.BOTH = [{ value = "canary-masked-0001", masked = true, environment_scope = "a" }, { value = "canary x", environment_scope = "b" }]
[runner]
sentry_dsn = "https://canary-dsn@sentry.example.com/1"
[[runners]]
name = "elsewhere"
url = "https://other.example.com"
executor = "shell"
registration_token = "canary-registration"
environment = ["API_TOKEN=canary-job", "HOSTS=203.0.113.18,203.0.113.180"]
"""


def resolved(value: Any) -> list[str]:
    """Every leaf of settings as text, with its secrets fetched."""
    return [one.resolve().reveal() if isinstance(one, SecretSource) else str(one) for one in leaf_values(plain(value))]


def test_nothing_of_production_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are not run, no canary and no address is left; what is rehearsed stays."""
    monkeypatch.setenv("CANARY", "canary-env")
    monkeypatch.chdir(tmp_path)
    lab, files = rehearsed(tmp_path, monkeypatch, ESTATE)
    for name in ("api_token", "registry_password", "sudo_password", "rehearsal_secret"):
        (lab.folder / name).write_text(f"lab-{name}")
    inventory = load(files)
    texts = [text for host in inventory.hosts for _, value in host.settings.items() for text in resolved(value)]
    for gone in (
        "canary",
        "203.0.113.10",
        "203.0.113.18,",
        "bastion",
        "production_key",
        "other.example.com",
        "tokens.example",
    ):
        assert not [text for text in texts if gone in text]
    assert not [path.name for path in tmp_path.iterdir() if path.name.isupper()]  # a command creates such a file
    git, ci, _ = inventory.hosts
    assert resolved(git.settings[Ssh])[-1] == "lab-sudo_password"
    assert git.settings[Gitlab].settings["prometheus"]["listen_address"] == "198.18.7.10:9090"
    own, hub = git.settings.all(Image)
    assert (own.push, own.login and own.login.username) == (True, lab.server.username)
    assert (hub.push, hub.login) == (False, None)
    (app,) = git.settings.all(App)
    assert (app.environment["PORT"], app.environment["MODE"], app.environment["DB"]) == (
        "8080",
        "production",
        "rehearsal",
    )
    assert git.settings.named(Project)["sammy/own"].wait is False  # its source has no Dockerfile
    variables = git.settings.named(Project)["sammy/own"].variables
    assert (variables["LEVEL"][0].value, variables["PLAIN"][0].value) == ("debug", "rehearsal")
    assert variables["BOTH"][0].masked
    (runner,) = ci.settings.all(Runner)
    assert (runner.url, runner.registration_token) == (None, None)
    assert runner.environment == ("API_TOKEN=rehearsal", "HOSTS=198.18.7.11,203.0.113.180")


@pytest.mark.parametrize(
    ("dockerfile", "build", "waits"),
    [
        ("FROM node:24-slim\nRUN npm ci\n", "socket", True),
        (
            "from --platform=linux/amd64 golang:1.24 as build\nFROM alpine:3.22\nCOPY --from=build /a /a\n",
            "socket",
            True,
        ),
        ("FROM golang:1.24 AS build\nFROM build\n", "socket", True),
        ("FROM node:22\n", "socket", False),
        ("FROM node:24-slim\n", "dind", False),
        (None, "socket", False),
    ],
)
def test_a_pipeline_is_waited_for_where_its_images_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dockerfile: str | None, build: str, waits: bool
) -> None:
    """All images that the Dockerfile begins with are in the lab's Docker Hub."""
    tmp_path.joinpath("app").mkdir()
    if dockerfile:
        tmp_path.joinpath("app/Dockerfile").write_text(dockerfile)
    volumes = 'volumes = ["/var/run/docker.sock:/var/run/docker.sock"]' if build == "socket" else "privileged = true"
    text = (
        '[hosts.gitlab]\ngroups = ["gitlab"]\n[hosts.ci]\ngroups = ["runners"]\n'
        '[gitlab]\nexternal_url = "https://gitlab.example.com"\n[registry]\nexternal_url = "https://gitlab.example.com:5555"\n'
        f'[[runners]]\nname = "a"\nexecutor = "docker"\n[runners.docker]\nimage = "x"\n{volumes}\n'
        f'[projects."sammy/a"]\nsource = "{tmp_path}/app"\nwait = true\n'
        f'[projects."sammy/a".pipeline]\ntemplate = "registry"\ntest = "true"\nbuild = "{build}"\n'
    )
    _, files = rehearsed(tmp_path, monkeypatch, text)
    assert load(files).hosts[0].settings.named(Project)["sammy/a"].wait is waits


def test_the_api_is_asked_at_the_labs_gitlab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the name resolves to on this machine."""
    _, files = rehearsed(tmp_path, monkeypatch, ESTATE)
    assert {host.settings[Gitlab].api_address for host in load(files).hosts} == {"198.18.7.10"}


def test_a_gitlab_that_is_not_in_the_inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its URL becomes one that is never resolved: there is no GitLab in this lab."""
    text = ESTATE.replace('groups = ["gitlab"]', "")
    _, files = rehearsed(tmp_path, monkeypatch, text)
    ci = load(files).hosts[1]
    assert str(ci.settings[Gitlab].external_url) == f"https://{NOWHERE}"
    assert ci.settings[Gitlab].api_address == NOWHERE
    assert str(ci.settings[Registry].external_url) == f"https://{NOWHERE}:5555"
    assert str(ci.settings.all(Runner)[0].url) == f"https://{NOWHERE}"


def test_urls_with_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They become the lab's address, in image names too; the certificate has an explicit path then."""
    text = ESTATE.replace("git.example.com", "203.0.113.10").replace(
        '"sammy/own"\ncontext', '"203.0.113.10:5555/s/o"\ncontext'
    )
    lab, files = rehearsed(tmp_path, monkeypatch, text)
    git = load(files).hosts[0]
    assert str(git.settings[Gitlab].external_url) == "https://198.18.7.10"
    registry = git.settings[Registry]
    assert str(registry.external_url) == "https://198.18.7.10:5555"
    assert registry.certificate is not None
    assert registry.certificate.fullchain == lab.server.fullchain
    own = git.settings.all(Image)[0]
    assert (own.name, own.push) == ("198.18.7.10:5555/s/o", True)


@pytest.mark.parametrize("client", ["certbot", "omnibus"])
def test_no_authority_is_asked_about_productions_name(
    client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the internet, Let's Encrypt would count a failure against production's name."""
    text = f'[registry.certificate.acme]\nclient = "{client}"\nemail = "ops@example.com"\n[[images]]'
    _, files = rehearsed(tmp_path, monkeypatch, ESTATE.replace("[[images]]", text, 1), internet=True)
    certificate = load(files).hosts[0].settings[Registry].certificate
    assert certificate is not None
    assert certificate.acme is not None
    assert (certificate.acme.client, str(certificate.acme.directory)) == ("certbot", f"https://{NOWHERE}/directory")


def test_addresses_that_a_lab_with_internet_must_not_reach(tmp_path: Path) -> None:
    """Those of hosts, of URLs and names in settings, and of private registries; not those of package mirrors."""
    path = tmp_path / "estate.toml"
    mirror = '[apt.docker]\nurl = "https://192.0.2.99/docker"\n[[images]]'
    more = ESTATE.replace("other.example.com", "192.0.2.1").replace("registry.example.org", "192.0.2.2:5000")
    more = more.replace('"203.0.113.10:9090"', '"192.0.2.3:9090"').replace("[[images]]", mirror, 1)
    path.write_text(more.replace("u:canary-db@db.example.com", "u:canary-db@192.0.2.4"))
    found = rehearsal.production([path])
    assert {"203.0.113.10", "203.0.113.18", "203.0.113.19", *(f"192.0.2.{n}" for n in range(1, 5))} <= set(found)
    assert "192.0.2.99" not in found
    assert not [one for one in found if one.startswith("127.")]


def test_a_host_by_name_is_resolved_in_the_lab(tmp_path: Path) -> None:
    """The other hosts of the lab know its address by that name."""
    path = tmp_path / "estate.toml"
    path.write_text('[hosts.git]\naddress = "git.internal.example.com"\n[hosts.ci]\naddress = "203.0.113.1"\n')
    hosts, _ = rehearsal.plan([path])
    assert [host.names for host in hosts] == [("git.internal.example.com",), ()]

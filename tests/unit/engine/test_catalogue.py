"""What can be named: shipped playbooks and tasks, and the user's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from provision.engine.catalogue import Catalogue, folders_beside
from provision.errors import PlaybookError, UsageError

MOTD = '''"""{doc}"""

from provision.resources import File
from provision.tasks import docker, play, task


@task(on="all")
def {name}(host):
    """{doc}

    More about it.
    """
    yield File("/etc/motd", host.name)
'''


def write(folder: Path, name: str, text: str) -> Path:
    """A file of the user's."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_tasks_load_only_what_every_run_needs() -> None:
    """Imports are most of the time of a run that changes nothing: rare resources and heavy libraries are imported when used."""
    rare = ["delivery.pipeline", "delivery.project", "delivery.variables", "system.download"]
    late = [f"provision.resources.{one}" for one in rare]
    late += ["provision.editing.ruby", "provision.formats.build_context", "provision.gitlab.session"]
    late += [
        "provision.inventory.reference",
        "html",
        "http",
        "http.client",
        "ssl",
        "cryptography",
        "jinja2",
        "requests",
        "rich",
        "tomlkit",
        "tree_sitter",
    ]
    code = f"import sys\nimport provision.engine.assemble\nprint([one for one in {late} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_what_ships() -> None:
    """Every name of the manual is there, with a headline."""
    catalogue = Catalogue.of([])
    assert set(catalogue.playbooks) == {"all", "server", "runners"}
    names = {"docker", "runner", "register", "gitlab", "certificates", "registry", "firewall", "verify"}
    assert set(catalogue.tasks) >= names
    headlines = [one.headline for one in catalogue.playbooks.values()]
    headlines += [one.headline for one in catalogue.tasks.values()]
    assert all(one.endswith(".") for one in headlines)


def test_names_are_played_in_their_order() -> None:
    """A playbook is its plays; a task is a play of its own, on its group."""
    plays = Catalogue.of([]).plays(["verify", "runners", "gitlab"])
    assert [(one.on, [task.name for task in one.tasks]) for one in plays] == [
        ("runners", ["verify"]),
        ("runners", ["firewall", "docker", "runner", "register"]),
        ("gitlab", ["gitlab"]),
    ]


@pytest.mark.parametrize("name", ["all", "server", "runners"])
def test_a_hosts_firewall_comes_first(name: str) -> None:
    """Its ports are open before a certificate is asked for, and before anything connects to the host."""
    for one in Catalogue.of([]).plays([name]):
        names = [task.name for task in one.tasks]
        if one.on == "gitlab" or "docker" in names:
            assert names[0] == "firewall"


def test_a_task_of_the_users_own(tmp_path: Path) -> None:
    """It has its own name, not its file's; what the file imports is not a task of the file."""
    write(tmp_path, "anything.py", MOTD.format(name="motd", doc="Logins are greeted."))
    catalogue = Catalogue.of([tmp_path])
    (play,) = catalogue.plays(["motd"])
    assert (play.on, play.tasks[0].headline) == ("all", "Logins are greeted.")
    assert play.tasks[0].doc == "Logins are greeted.\n\nMore about it."
    assert catalogue.tasks["docker"].headline != "Logins are greeted."
    assert "anything" not in catalogue.playbooks


def test_a_playbook_of_the_users_own(tmp_path: Path) -> None:
    """Its name is the file's, its headline the module's first line."""
    text = MOTD.format(name="motd", doc="Everything, greeted.") + '\nPLAYS = [play("web", motd, docker)]\n'
    write(tmp_path, "everything.py", text)
    book = Catalogue.of([tmp_path]).playbooks["everything"]
    assert (book.headline, book.plays[0].on) == ("Everything, greeted.", "web")
    assert [one.name for one in book.plays[0].tasks] == ["motd", "docker"]


def test_the_users_own_replace_shipped_ones(tmp_path: Path) -> None:
    """Tasks replace tasks, playbooks replace playbooks, and a task replaces a shipped playbook of its name."""
    write(tmp_path, "a.py", MOTD.format(name="docker", doc="My own docker."))
    write(tmp_path, "b.py", MOTD.format(name="server", doc="My own server."))
    write(tmp_path, "runners.py", '"""My own runners."""\nPLAYS = []\n')
    catalogue = Catalogue.of([tmp_path])
    assert catalogue.tasks["docker"].headline == "My own docker."
    assert catalogue.plays(["server"])[0].tasks[0].headline == "My own server."
    assert catalogue.playbooks["runners"].headline == "My own runners."


def test_later_folders_replace_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder beside the inventory replaces that in the current folder."""
    beside, current = tmp_path / "estate", tmp_path / "here"
    write(beside / "playbooks", "m.py", MOTD.format(name="motd", doc="Beside the inventory."))
    write(current / "playbooks", "m.py", MOTD.format(name="motd", doc="In the current folder."))
    monkeypatch.chdir(current)
    folders = folders_beside([beside / "inventory.toml"])
    assert folders == [current / "playbooks", beside / "playbooks"]
    assert Catalogue.of(folders).tasks["motd"].headline == "Beside the inventory."


def test_folders_are_used_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For two inventories in the current folder; the shipped folder is not the user's."""
    monkeypatch.chdir(tmp_path)
    assert folders_beside([Path("inventory.toml")]) == []
    (tmp_path / "playbooks").mkdir()
    assert folders_beside([Path("inventory.toml"), Path("more.toml")]) == [tmp_path / "playbooks"]
    monkeypatch.chdir(Path(__file__).resolve().parents[3])
    assert folders_beside([]) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nimport nothing_of_this_name\n", "broken.py:2: ModuleNotFoundError: No module named"),
        ("def f(:\n", "broken.py:1: SyntaxError: "),
        ("\n\nraise ValueError('so there')\n", "broken.py:3: ValueError: so there"),
        ("import json\njson.loads('{')\n", "broken.py:2: JSONDecodeError: "),
        ("from provision.tasks import nosuch\n", "broken.py:1: ImportError: cannot import name 'nosuch'"),
        ("PLAYS = 7\n", "broken.py: PLAYS is not a list of plays"),
        ("PLAYS = ['docker']\n", "broken.py: PLAYS is not a list of plays"),
        ("from provision import play\nPLAYS = [play('all', 7)]\n", "broken.py: PLAYS: 7 is not a task"),
        (
            "from provision import task\n@task\ndef f(host):\n    yield\n",
            'broken.py:2: TypeError: write @task(on="all")',
        ),
        ("from provision import task\ntask(settings=int)\n", "broken.py:2: TypeError: <class 'int'> is not a table"),
        ("from provision import Docker, task\ntask(uses=Docker)\n", "broken.py:2: TypeError: uses= expects a tuple"),
    ],
)
def test_a_broken_file_is_reported_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    """For every kind of error, each time that it is loaded."""
    path = write(tmp_path, "broken.py", text)
    for _ in range(2):
        catalogue = Catalogue.of([tmp_path])
        with pytest.raises(PlaybookError) as caught:
            catalogue.plays(["broken"])
        assert caught.value.text.startswith(str(path))
        assert message in caught.value.text
        assert caught.value.hint
        assert catalogue.plays(["docker"])  # other names go on


def test_a_syntax_error_in_an_imported_file_is_reported_at_the_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is one of the playbook's, not of the other file."""
    write(tmp_path / "lib", "halfway_module.py", "\n\n\n\ndef f(:\n")
    path = write(tmp_path / "playbooks", "p.py", "x = 1\nimport halfway_module\n")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    with pytest.raises(PlaybookError) as caught:
        Catalogue.of([tmp_path / "playbooks"]).plays(["p"])
    assert caught.value.text.startswith(f"{path}:2: SyntaxError: ")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("registy", "did you mean 'registry'?"),
        ("runer", "did you mean 'runner'?"),
        ("run", "`provision list` prints all names"),
        ("prunee", "`provision list` prints all names"),
        ("xyzzy", "`provision list` prints all names"),
        ("", "`provision list` prints all names"),
    ],
)
def test_an_unknown_name(name: str, hint: str) -> None:
    """The nearest one is offered."""
    with pytest.raises(UsageError, match=f"no playbook or task has the name {name!r}") as caught:
        Catalogue.of([]).plays([name])
    assert caught.value.hint == hint

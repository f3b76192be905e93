"""Tasks with settings tables: how the function is called, and how the catalogue registers the tables."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision import File, Host, Resource, Table, UsageError, task
from provision.engine.catalogue import Catalogue
from provision.errors import PlaybookError
from provision.inventory import Settings
from tests.support.playbooks import NODE_EXPORTER, write_estate


class Banner(Table):
    """A banner."""

    text: str
    """The text."""


class Port(Table, name="ports", occurs="array"):
    """A port."""

    number: int
    """Its number."""


def host(*tables: Table) -> Host:
    """A host with these tables."""
    return Host("web1", "web1", (), None, Settings({Banner: None} | {type(one): one for one in tables}))


@task(settings=Banner)
def banner(host: Host, wanted: Banner) -> Iterator[Resource]:
    """Put up the banner."""
    yield File("/etc/banner", f"{host.name}: {wanted.text}")


def test_the_function_is_given_its_table() -> None:
    """The function gets the host and the table."""
    assert banner.resources(host(Banner(text="hello"))) == (File("/etc/banner", "web1: hello"),)


def test_without_its_optional_table_there_is_nothing_to_do() -> None:
    """The host is not contacted for it."""
    assert not banner.concerns(host())
    assert banner.resources(host()) == ()


def test_where_is_asked_as_well() -> None:
    """`where` is evaluated for hosts that have the table."""

    @task(settings=Banner, where=lambda host: host.name == "web2")
    def elsewhere(host: Host, wanted: Banner) -> Iterator[Resource]:
        """Put up the banner of web2."""
        yield File(host.name, wanted.text)

    assert not elsewhere.concerns(host(Banner(text="hello")))


def test_a_table_that_may_stand_several_times_is_no_settings() -> None:
    """It belongs in `uses`."""
    with pytest.raises(TypeError, match=r"settings=Port: \[\[ports\]\] may occur several times; name it in uses="):
        task(settings=Port)


def test_a_playbook_of_ones_own_registers_its_table(tmp_path: Path) -> None:
    """Host beats group beats top level; annotations may be strings."""
    path = write_estate(
        tmp_path,
        "[node_exporter]\nport = 1\nmirror = 'https://m'\n[groups.web.node_exporter]\nport = 2\n"
        "[hosts.web1.node_exporter]\nport = 3\n",
    )
    catalogue = Catalogue.beside([path])
    (web1,) = catalogue.load([path]).hosts
    assert catalogue.tasks["node_exporter"].resources(web1) == (File("/etc/default/node_exporter", "PORT=3\n"),)
    (web1,) = catalogue.load([path], ["node_exporter.port=4"]).hosts
    assert catalogue.tasks["node_exporter"].resources(web1) == (File("/etc/default/node_exporter", "PORT=4\n"),)


def test_two_playbooks_with_one_table_are_refused(tmp_path: Path) -> None:
    """The second file is not used; the message names both. Commands that need only the first one work."""
    path = write_estate(tmp_path, another=NODE_EXPORTER.replace("def node_exporter", "def other"))
    catalogue = Catalogue.beside([path])
    catalogue.load([path])
    with pytest.raises(PlaybookError, match=r"two tables have the name \[node_exporter\]") as caught:
        catalogue.plays(["node_exporter"])
    assert f"{path.parent}/playbooks/another.py:9" in caught.value.text
    assert f"{path.parent}/playbooks/node_exporter.py:9" in caught.value.text
    assert catalogue.plays(["other"])[0].tasks[0].name == "other"


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        ("@task()\ndef own(host):", "yield Nothing()", ":5: task own: NameError: name 'Nothing' is not defined"),
        ("@task()\ndef own(host, wanted):", "yield", ":2: task own: TypeError: own() missing 1 required positional"),
        ("@task()\ndef own(host):", "yield 'x'", ":2: task own: TypeError: expected resources, got 'x'"),
        ("@task()\ndef own(host):", "return None", ":2: task own: TypeError: the function returns nothing: write"),
        ("@task(where=lambda host: host.nope)\ndef own(host):", "yield", ":2: task own: AttributeError: "),
    ],
)
def test_an_error_in_a_function_is_reported_with_file_and_line(
    tmp_path: Path, header: str, body: str, message: str
) -> None:
    """It is the playbook's error: not a traceback, and not a bug in provision."""
    path = tmp_path / "mine.py"
    path.write_text(f"from provision import task\n{header}\n    # the body\n    {body}\n")
    own = Catalogue.of([tmp_path]).tasks["own"]
    with pytest.raises(UsageError) as caught:
        own.resources(host())
    assert caught.value.text.startswith(f"{path}{message}")
    assert caught.value.hint == "fix the playbook file"


def test_an_error_of_the_inventory_is_passed_on() -> None:
    """A task function may refuse settings with an error of provision."""

    @task(on="all")
    def refuses(host: Host) -> Iterator[Resource]:
        """Refuse."""
        raise UsageError(f"{host.name}: no")
        yield

    with pytest.raises(UsageError, match=r"^web1: no$"):
        refuses.resources(host())


class Point(importlib.metadata.EntryPoint):
    """An entry point of this module."""

    def load(self) -> Any:
        """The object with this name; an exception is raised."""
        found = globals()[self.value]
        if isinstance(found, Exception):
            raise found
        return found


BROKEN = ImportError("no module named x")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("banner", ""),
        ("BROKEN", "the task banner of the distribution BROKEN cannot be loaded: ImportError: no module named x"),
        ("Banner", "the task banner of the distribution Banner: Banner is not a task"),
    ],
)
def test_tasks_of_other_distributions(monkeypatch: pytest.MonkeyPatch, value: str, message: str) -> None:
    """They are found by an entry point, with their tables. The message names a broken one."""
    points = [Point("banner", value, "provision.tasks")]
    monkeypatch.setattr("provision.engine.catalogue.added", lambda _: points)
    if message:
        catalogue = Catalogue.of()
        with pytest.raises(UsageError) as caught:
            catalogue.plays(["banner"])
        assert caught.value.text == message
        assert catalogue.plays(["docker"])
    else:
        catalogue = Catalogue.of()
        assert catalogue.tasks["banner"] is banner
        assert "banner" in catalogue.tables

"""A table that a task of the user's own registers: validated, merged, completed and explained like a shipped one."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import pytest
from pydantic import Field

from provision.errors import InventoryError, UsageError
from provision.inventory import Host, SecretSource, Table, Tables, load
from provision.inventory.reference import explain_table, find_table, schema, table_list
from provision.inventory.settings import Settings
from provision.inventory.tables.base import InvalidValue, Subtable, is_optional, options_of
from provision.inventory.tables.docker import Docker
from provision.inventory.tables.registry import Registry
from provision.url import Url


class Scrape(Table):
    """The scraper."""

    source: str = "any"
    """An address or a network."""
    password: SecretSource | None = None
    """The password of the endpoint."""


class NodeExporter(Table):
    """[node_exporter]: Prometheus's exporter of host metrics.

    It listens on all addresses.
    """

    version: str = "1.9.1"
    """The release to install."""
    port: int = 9100
    """Where it listens."""
    collectors: tuple[str, ...] = ()
    """Collectors to switch on."""
    rules: Path | None = None
    """A local file with alert rules."""
    mirror: Url | None = None
    """Where to download it."""
    scrape: Scrape | None = None
    """The scraper."""
    labels: Annotated[dict[str, Any], Subtable("extra")] = Field(default_factory=dict)
    """Labels of every metric."""
    files: tuple[Path, ...] = ()
    """Local files."""
    by_job: dict[str, Scrape] = Field(default_factory=dict)
    """Other scrapers, by job."""


class Probe(Table, name="probes", occurs="array"):
    """One probe."""

    target: Url
    """What is probed."""

    @classmethod
    def check_all(cls, tables: Any) -> None:
        """Targets differ."""
        seen: dict[str, Any] = {}
        for place, one in tables.items():
            if seen.setdefault(str(one.target), place) != place:
                raise InvalidValue(f"probes[{seen[str(one.target)]}] has this target, too", place, "target")


class Dashboard(Table, name="dashboards", occurs="named"):
    """A dashboard, by its name."""

    title: str
    """What stands above it."""


class Alerts(Table, optional=True):
    """Alerts."""

    to: str = "root"
    """The recipient."""


TABLES = Tables([Docker, Registry, NodeExporter, Probe, Dashboard, Alerts])
Write = Callable[..., Path]


def read(write: Write, text: str, *overrides: str) -> Host:
    """The host of an inventory with these tables."""
    return load([write(f'[hosts.web1]\ngroups = ["web"]\n{text}')], overrides, TABLES).hosts[0]


def test_names_and_optional_tables() -> None:
    """The name follows from the class. A table is optional when a key has no default, or by its class option."""
    assert [options_of(one).brackets for one in TABLES][2:] == [
        *("[node_exporter]", "[[probes]]", "[dashboards.NAME]", "[alerts]")
    ]
    assert [is_optional(one) for one in (NodeExporter, Registry, Alerts)] == [False, True, True]


def test_defaults(write: Write) -> None:
    """An absent table has its defaults, or is None, or none."""
    settings = read(write, "").settings
    assert (settings[NodeExporter].port, settings.get(Alerts)) == (9100, None)
    assert (settings.all(Probe), settings.named(Dashboard)) == ((), {})
    with pytest.raises(InventoryError, match=r"^\[alerts\] is missing in the inventory"):
        settings[Alerts]


def test_values(write: Write) -> None:
    """Paths, URLs, secrets and arrays follow from the fields, on every level."""
    text = """
[node_exporter]
collectors = ["systemd"]
rules = "rules.yml"
files = ["a", "/b"]
mirror = "https://mirror.example.com/"
labels = { env = "prod", api_token = "secret-text", deep = { x = { env = "HOME" } }, extra = { file = "x" } }
[node_exporter.scrape]
password = { env = "HOME" }
[node_exporter.by_job.other]
source = "10.0.0.1"
[[probes]]
target = "http://localhost:1"
[dashboards.main]
title = "Main"
[groups.web.node_exporter]
port = 9200
[hosts.web1.node_exporter]
version = "2"
[alerts]
"""
    host = read(write, text, "node_exporter.scrape.source=10.0.0.0/8")
    found = host.settings[NodeExporter]
    folder = write("", "x").parent
    assert (found.port, found.version, found.collectors) == (9200, "2", ("systemd",))
    assert (found.rules, found.files) == (folder / "rules.yml", (folder / "a", Path("/b")))
    assert (str(found.mirror), found.by_job["other"].source) == ("https://mirror.example.com", "10.0.0.1")
    assert found.scrape is not None
    assert (found.scrape.source, found.scrape.password) == ("10.0.0.0/8", SecretSource("env", "HOME"))
    assert found.labels["env"] == "prod"
    assert [type(one) for one in (found.labels["api_token"], found.labels["deep"]["x"])] == [SecretSource] * 2
    assert found.labels["extra"] == {"file": "x"}
    assert [str(one.target) for one in host.settings.all(Probe)] == ["http://localhost:1"]
    assert host.settings.named(Dashboard)["main"].title == "Main"
    assert host.settings[Alerts].to == "root"


# the text from line 3 on, the line, the key, and a part of the message
MISTAKES = [
    ("[node_exporter]\nprot = 1\n", 4, "node_exporter.prot", 'unknown key; did you mean "port"?'),
    ("[node_exportr]\nport = 1\n", 3, "node_exportr", 'unknown key; did you mean "node_exporter"?'),
    ("[entirely_else]\n", 3, "entirely_else", "unknown key; there are:"),
    ('[node_exporter]\nport = "9100"\n', 4, "node_exporter.port", 'expected a whole number, got the string "9100"'),
    ("[node_exporter.scrape]\nsorce = 'x'\n", 4, "node_exporter.scrape.sorce", 'did you mean "source"?'),
    ("[node_exporter.by_job.x]\nsorce = 'x'\n", 4, "node_exporter.by_job.x.sorce", 'did you mean "source"?'),
    ("[node_exporter]\nmirror = 'x'\n", 4, "node_exporter.mirror", "expected a URL with its scheme"),
    ("[groups.web.node_exporter]\nprot = 1\n", 4, "groups.web.node_exporter.prot", 'did you mean "port"?'),
    ("[hosts.web1.node_exporter]\nprot = 1\n", 4, "hosts.web1.node_exporter.prot", 'did you mean "port"?'),
    ("node_exporter = 5\n", 3, "hosts.web1.node_exporter", "expected a table, got the number 5"),
    ("[[probes]]\n", 3, "probes[0].target", "is missing, and has no default"),
    ("[probes]\n", 3, "probes", "expected an array of tables [[probes]], got a table"),
    ("[[probes]]\ntarget='http://a'\n[[probes]]\ntarget='http://a'\n", 6, "probes[1].target", "probes[0] has this"),
    ("dashboards = []\n", 3, "hosts.web1.dashboards", "expected tables [dashboards.NAME], got an array"),
    ("[dashboards.a]\n", 3, "dashboards.a.title", "is missing, and has no default"),
]


@pytest.mark.parametrize(("text", "line", "key", "expected"), MISTAKES)
def test_mistakes_name_file_line_and_key(write: Write, text: str, line: int, key: str, expected: str) -> None:
    """The messages are those of shipped tables."""
    with pytest.raises(InventoryError) as caught:
        read(write, text)
    assert f"inventory.toml:{line}: {key}: " in caught.value.text
    assert expected in caught.value.text


def test_a_mistake_on_the_command_line(write: Write) -> None:
    """The message begins with `--set`."""
    with pytest.raises(InventoryError, match=r'--set: node_exporter\.prot: unknown key; did you mean "port"\?'):
        read(write, "", "node_exporter.prot=1")


def test_secrets_are_masked(write: Write) -> None:
    """Secrets by the field's type, and strings under secret-looking keys."""

    class Backup(Table):
        """Backups."""

        password: str = "text-canary"
        """A string that should have been a SecretSource."""

    inventory = load([write("[hosts.a]\n")], (), Tables([Backup]))
    assert "text-canary" not in inventory.as_text()
    assert "text-canary" not in str(inventory.as_dict())


def test_two_classes_with_one_name_are_refused() -> None:
    """The message names both classes and files. One class may be registered several times."""

    class Another(Table, name="node_exporter"):
        """Another one."""

    assert Tables([NodeExporter, NodeExporter]).names == ("node_exporter",)
    with pytest.raises(
        UsageError, match=r"^two tables have the name \[node_exporter\]: Another in .*test_own"
    ) as caught:
        Tables([NodeExporter, Another])
    assert f"NodeExporter in {__file__}:" in caught.value.text


def test_names_that_mean_something_else_are_refused() -> None:
    """[hosts], [groups] and the keys of a host."""

    class Groups(Table):
        """Not these."""

    with pytest.raises(UsageError, match=r"^\[groups\]: this name has another meaning"):
        Tables([Groups])


def test_tables_are_read_as_they_are_written(write: Write) -> None:
    """Reading an unregistered table, or in the wrong way, is an error of the task."""
    settings = read(write, "").settings
    with pytest.raises(TypeError, match=r"Probe is written \[\[probes\]\]"):
        settings[Probe]
    with pytest.raises(LookupError, match=r"no task registers NodeExporter: name it in @task"):
        Settings({})[NodeExporter]


def test_the_schema_has_them() -> None:
    """It has the docstrings. Only keys of arrays are required: others may come from a group or host."""
    found = schema(TABLES)
    validator = jsonschema.Draft202012Validator(found)
    assert not list(validator.iter_errors(tomllib.loads("[hosts.a.node_exporter]\nport = 1\n[dashboards.x]\n")))
    for text in ("[node_exporter]\nprot = 1\n", "[[probes]]\n", "[groups.a.dashboards.x]\ntitle = 5\n"):
        assert list(validator.iter_errors(tomllib.loads(text))), text
    assert found["$defs"]["NodeExporter"]["properties"]["port"]["description"] == "Where it listens."


def test_it_is_explained() -> None:
    """Keys with type, default and docstring, then the tables in it."""
    assert "  [node_exporter]    Prometheus's exporter of host metrics.\n" in table_list(TABLES)
    found = find_table(TABLES, "node_exporter")
    assert found is not None
    text = explain_table(*found)
    for part in (
        "table [node_exporter]\n\n  [node_exporter]: Prometheus's exporter of host metrics.\n\n  It listens",
        '\n  version  (string, default "1.9.1")\n    The release to install.\n',
        "\n  rules  (local path)\n",
        "\n  collectors  (array of strings)\n",
        "\ntable [node_exporter.scrape]\n",
        "\ntable [node_exporter.by_job.NAME]\n",
        "\n  password  (secret)\n",
    ):
        assert part in text
    inner = find_table(TABLES, "registry.certificate")
    assert inner is not None
    assert explain_table(*inner).startswith("table [registry.certificate]\n")
    assert (find_table(TABLES, "nothing"), find_table(TABLES, "registry.x")) == (None, None)

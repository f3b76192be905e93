"""The tables below [[runners]]: misspelt keys and wrong types are refused; what is newer is written in `extra`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provision.engine.catalogue import Catalogue
from provision.errors import InventoryError
from provision.inventory.reference import explain_keys, schema
from provision.inventory.secrets import SecretSource
from provision.inventory.tables.runner_keys import _KEYS, checked, keys_of
from provision.inventory.tables.runners import Runner, RunnerProgram

BASE = '[hosts.a]\n[[runners]]\nname = "r"\nexecutor = "docker"\n[runners.docker]\nimage = "docker:28"\n'


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """`config(toml)`: what is written to config.toml for one docker runner with more lines."""
    file = tmp_path / "i.toml"

    def load(text: str) -> dict[str, Any]:
        file.write_text(BASE + text)
        file.chmod(0o600)
        (host,) = Catalogue.of().load([file]).hosts
        (runner,) = host.settings.all(Runner)
        return runner.config

    return load


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("priviledged = true", ':7: runners[0].docker.priviledged: unknown key; did you mean "privileged"?'),
        ('privileged = "yes"', 'runners[0].docker.privileged: expected true or false, got the string "yes"'),
        ('volumes = "/cache"', 'docker.volumes: expected an array, got the string "/cache"'),
        ("volumes = [1]", "docker.volumes[0]: expected a string, got the number 1"),
        ('shm_size = "1g"', 'docker.shm_size: expected a whole number, got the string "1g"'),
        ("pull_policy = 1", "docker.pull_policy: expected a string, got the number 1"),
        ("sysctls = [1]", "docker.sysctls: expected a table, got an array"),
        ('services = [{ nmae = "x" }]', 'docker.services[0].nmae: unknown key; did you mean "name"?'),
        ("nothing_like_it = 1", "extra = { … }"),
        ("extra = { privileged = true }", "docker.extra.privileged: this key is known: write it outside of extra"),
        ("[runners.cache]\ntype = 's3'", 'cache.type: unknown key; did you mean "Type"?'),
        ("[runners.cache.s3]\nBucketNme = 's3'", 'cache.s3.BucketNme: unknown key; did you mean "BucketName"?'),
        ("[runners.kubernetes]\nnamspace = 'x'", 'kubernetes.namspace: unknown key; did you mean "namespace"?'),
        ("[runners.machine]\nIdleCont = 1", 'machine.IdleCont: unknown key; did you mean "IdleCount"?'),
        ("[runners.autoscaler]\nupdate_interval = '5'", 'update_interval: expected a duration such as "15m0s"'),
        ("[runners.feature_flags]\nFF_X = 1", "feature_flags.FF_X: expected true or false, got the number 1"),
        ("[runners.extra]\nlimit = 1", "runners[0].extra.limit: this key is known"),
        ("[runners.extra]\ntoken = 'x'", "runners[0].extra.token: this key is known"),
        ("[runner.session_server]\nlisten = 'x'", "runner.session_server.listen: unknown key"),
        ("[runner.extra]\nconcurrent = 1", "runner.extra.concurrent: this key is known"),
    ],
)
def test_refused(config: Callable[[str], Any], text: str, message: str) -> None:
    """With the nearest key, and the expected type."""
    with pytest.raises(InventoryError) as caught:
        config(text)
    assert message in caught.value.text


def test_all_mistakes_of_a_table_are_reported(config: Callable[[str], Any]) -> None:
    """Not only the first one."""
    with pytest.raises(InventoryError) as caught:
        config("priviledged = true\nvolumes = 1\n[runners.cache]\npath = 'x'\n")
    assert len(caught.value.text.splitlines()) == 3


def test_a_wrong_value_of_a_secret_is_not_shown(config: Callable[[str], Any]) -> None:
    """The message has no text of a key that is named like a secret."""
    with pytest.raises(InventoryError) as caught:
        config("[runners.cache.s3]\nSecretKey = 12345678\n")
    assert "12345678" not in caught.value.text


def test_extra_is_written_beside_the_other_keys(config: Callable[[str], Any]) -> None:
    """At every level."""
    written = config("extra = { newer = [1] }\n[runners.extra]\nnewest = true\n[runners.cache.s3.extra]\nNew = 'x'\n")
    assert written["newest"] is True
    assert written["docker"] == {"image": "docker:28", "newer": [1]}
    assert written["cache"] == {"s3": {"New": "x"}}
    assert "extra" not in written


def test_extra_of_the_program(tmp_path: Path) -> None:
    """The top level of config.toml."""
    (tmp_path / "i.toml").write_text("[hosts.a]\n[runner]\nconcurrent = 2\nextra = { newer = 1 }\n")
    (host,) = Catalogue.of().load([tmp_path / "i.toml"]).hosts
    assert host.settings[RunnerProgram].config == {"concurrent": 2, "newer": 1}


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('container_labels = { env = "prod" }', ("docker", "container_labels")),
        ('[runners.kubernetes.node_selector]\nenv = "ci"', ("kubernetes", "node_selector")),
        (
            '[runners.kubernetes.container_lifecycle.pre_stop]\nexec = { command = ["/bin/true"] }',
            ("kubernetes", "container_lifecycle", "pre_stop", "exec"),
        ),
    ],
)
def test_a_table_with_a_key_env_or_command_is_no_secret(
    config: Callable[[str], Any], text: str, path: tuple[str, ...]
) -> None:
    """It was read as a variable of this machine, or as a command to run here."""
    found = config(text)
    for key in path:
        found = found[key]
    assert found in ({"env": "prod"}, {"env": "ci"}, {"command": ["/bin/true"]})


@pytest.mark.parametrize("name", ["config.toml.19.3.0-fuller.sample", "config.toml.register-19.3.0-docker.sample"])
def test_what_gitlab_runner_itself_writes_is_accepted(name: str) -> None:
    """Every table of the files that gitlab-runner 19.3.0 wrote."""
    file = Path(__file__).parents[2] / "data" / name
    for runner in tomllib.loads(file.read_text())["runners"]:
        for key, value in runner.items():
            if isinstance(value, dict) and key in _KEYS:
                assert checked(key, value) == value


def test_every_type_that_is_named_exists() -> None:
    """The data refers to itself."""
    for table in _KEYS:
        for kind in keys_of(table).values():
            for one in kind.split("|"):
                inner = one.strip("[]{}")
                assert inner in "sbifd*" or inner in _KEYS, (table, kind)


def test_the_schema_has_the_keys() -> None:
    """For editors."""
    text = json.dumps(schema(Catalogue.of().tables))
    assert '"privileged": {"type": "boolean"}' in text
    assert '"BucketName"' in text


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("runners.docker", "  privileged  (boolean)"),
        ("runners.docker", "  pull_policy  (string or array of string)"),
        ("runners.docker.services", "  alias  (string)"),
        ("runners.cache.s3", "  BucketName  (string)"),
        ("runner.session_server", "  session_timeout  (number)"),
    ],
)
def test_explained(name: str, line: str) -> None:
    """`provision explain` prints the keys."""
    assert line in (explain_keys(Catalogue.of().tables, name) or "").splitlines()


@pytest.mark.parametrize("name", ["runners.dokcer", "runners.docker.image", "docker", "nope.x"])
def test_no_such_table(name: str) -> None:
    """Other names are not explained here."""
    assert explain_keys(Catalogue.of().tables, name) is None


def test_the_registration_is_not_written() -> None:
    """What GitLab has of a runner is no key of config.toml."""
    written = {"name": "r", "executor": "shell", "limit": 1}
    of_gitlab = {"tags": ["a"], "run_untagged": True, "locked": True, "paused": True, "maximum_timeout": 600}
    of_gitlab |= {"access_level": "ref_protected", "maintenance_note": "x", "runner_type": "group_type", "group": "a"}
    assert Runner.model_validate(written | of_gitlab).config == written
    by_project = {"registration_token": SecretSource("env", "T"), "runner_type": "project_type", "project": 1}
    assert Runner.model_validate(written | by_project | {"token": None}).config == written

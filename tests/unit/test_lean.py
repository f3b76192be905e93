"""Start-up: what is not imported, and that what was spared still works when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from provision.lean import without


def run(script: str) -> str:
    """What a fresh Python prints."""
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout


def test_a_stand_in_becomes_the_real_one_when_it_is_called() -> None:
    """And is gone for who imports the module afterwards."""
    script = """
import sys
from provision.lean import without
with without("colorsys"):
    from colorsys import rgb_to_hsv
assert "colorsys" not in sys.modules
print(rgb_to_hsv(0, 0, 1))
import colorsys
print(rgb_to_hsv is colorsys.rgb_to_hsv, colorsys.__file__ is not None)
"""
    assert run(script).splitlines() == ["(0.6666666666666666, 1.0, 1)", "False True"]


def test_a_stand_in_makes_room_when_it_is_called_too_early() -> None:
    """By another thread, while the imports are still under way."""
    script = """
import sys
from provision.lean import without
with without("colorsys"):
    import colorsys
    print(colorsys.rgb_to_hsv(0, 0, 1))
import colorsys
print(colorsys.__file__ is not None)
"""
    assert run(script).splitlines() == ["(0.6666666666666666, 1.0, 1)", "True"]


def test_a_module_that_is_there_stays() -> None:
    """Nobody's module is taken away."""
    with without("subprocess"):
        assert sys.modules["subprocess"] is subprocess
    assert sys.modules["subprocess"] is subprocess


@pytest.mark.parametrize(
    "code",
    [
        "import provision.ssh as s\nwith s._without_ballast(): import provision.ssh.line",
        "import provision.engine.assemble",
    ],
)
def test_what_start_up_does_without(code: str) -> None:
    """Neither an event loop, nor YAML, nor mail, nor a template engine, nor a live view."""
    unwanted = [
        "asyncio",
        "unittest.mock",
        "yaml",
        "invoke.vendor.yaml",
        "email",
        "jinja2",
        "rich",
        "gitlab",
        "requests",
    ]
    assert run(f"import sys; {code}\nprint(*(one for one in {unwanted} if one in sys.modules))").split() == []


def test_fabric_still_reads_yaml_and_mocks() -> None:
    """What was spared is there when somebody asks for it."""
    script = """
import provision.ssh, io
with provision.ssh._without_ballast(): import provision.ssh.line
from invoke import MockContext, Result
from invoke.util import yaml
print(yaml.safe_load("a: [1, 2]"), MockContext(run=Result("said")).run("x").stdout)
"""
    assert run(script).split("\n")[0] == "{'a': [1, 2]} said"


def test_versions_are_told_all_the_same() -> None:
    """paramiko introduces itself to servers with its own; one that is not installed as a folder is asked for properly."""
    script = """
import provision.ssh
with provision.ssh._without_ballast(): import provision.ssh.line
import paramiko, importlib.metadata
from provision.lean import _version
print(paramiko.__version__ == importlib.metadata.version("paramiko"))
try:
    _version("nonesuch")
except importlib.metadata.PackageNotFoundError as error:
    print(error.name)
"""
    assert run(script).split() == ["True", "nonesuch"]

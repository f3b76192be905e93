"""This machine as a host for tests of scripts, which run in several shells: the fixtures `shell` and `local`."""

from collections.abc import Callable
from typing import Final

import pytest

from provision.shell import Command, Result
from provision.testing import LocalSession

SHELLS: Final = {"dash": ("dash",), "bash": ("bash", "--posix"), "busybox": ("busybox", "sh")}
Local = Callable[..., LocalSession]

# For tests of a script that other tests run in each shell: make check must stay quick.
one_shell = pytest.mark.parametrize("shell", ["dash"], indirect=True)


def text_of(host: LocalSession, script: str) -> Result:
    """Runs shell text."""
    return host.run(Command(script), deadline=10)

"""Fixtures of several folders: an HTTP server on loopback, and this machine as a host."""

from __future__ import annotations

import copy
import shutil
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from provision import masking
from provision.testing import LocalSession
from tests.support.http_proxy import HttpProxy
from tests.support.local import SHELLS, Local
from tests.support.web import Reply, Request, Web


@pytest.fixture(autouse=True)
def only_its_own_secrets() -> Iterator[None]:
    """Secrets of one test are not masked in the texts of the next."""
    index, registered = copy.deepcopy(masking._index), set(masking._registered)
    yield
    masking._index, masking._registered = index, registered


@pytest.fixture
def serve() -> Iterator[Callable[..., Web]]:
    """Starts a server: `serve(lambda asked: reply(401))`."""
    running: list[Web] = []

    def start(
        answer: Callable[[Request], Reply], context: ssl.SSLContext | None = None, address: str = "127.0.0.1"
    ) -> Web:
        running.append(Web(answer, context, address))
        return running[-1]

    yield start
    for one in running:
        one.close()


@pytest.fixture
def proxy() -> Iterator[HttpProxy]:
    """A proxy on loopback."""
    with HttpProxy() as running:
        yield running


@pytest.fixture
def reply() -> type[Reply]:
    """`reply(401, headers={…})`."""
    return Reply


@pytest.fixture(params=[name if name == "dash" else pytest.param(name, marks=pytest.mark.shells) for name in SHELLS])
def shell(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """A shell's command line: Debian's /bin/sh, the one of other distributions, and a small one."""
    command = SHELLS[request.param]
    assert shutil.which(command[0]), f"{command[0]} is missing: make system installs it"
    return command


@pytest.fixture
def local(shell: tuple[str, ...]) -> Local:
    """Makes a session that runs scripts with this shell; arguments as for LocalSession."""

    def make(folders: Mapping[str, Path], environment: Mapping[str, str] | None = None) -> LocalSession:
        return LocalSession(folders, environment, shell=shell)

    return make

"""What planning imports is imported beside the wait for hosts, once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

import pytest

from provision.engine.warm import Warm
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.resources.certificate_pair import CertificatePair
from provision.resources.ruby_settings import RubySettings
from provision.resources.s3_bucket import S3Bucket


@dataclass(frozen=True)
class Heavy(Resource):
    """A resource that plans with a library."""

    libraries = ("colorsys", "tabnanny")

    @property
    def label(self) -> str:
        return "Heavy"

    def probe(self) -> Probe:
        return Probe()

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        del seen
        yield from ()


def test_libraries_are_there_when_it_has_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each, and one thread for all resources and calls."""
    for name in Heavy.libraries:
        monkeypatch.delitem(sys.modules, name, raising=False)
    started: list[threading.Thread] = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self: (started.append(self), start(self)))
    warm = Warm([Heavy(), Heavy()])
    warm.up()
    warm.up()
    (thread,) = started
    thread.join(10)
    assert set(Heavy.libraries) <= sys.modules.keys()


def test_without_libraries_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run over files needs none."""
    monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("a thread was started"))
    Warm([]).up()


@pytest.mark.parametrize("kind", [CertificatePair, RubySettings, S3Bucket])
def test_what_resources_name_can_be_imported(kind: type[Resource]) -> None:
    """A name that is misspelt would be told nowhere else."""
    assert kind.libraries
    for name in kind.libraries:
        import_module(name)

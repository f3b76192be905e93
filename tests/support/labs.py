"""Fixtures for conftest files: labs of real systemd hosts, booted once for a module and removed after it."""

import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from provision_lab import Lab, LabHost, preparing
from provision_lab.harness import Harness
from provision_lab.image import Image

_numbers = itertools.count(1)
_LIKE = os.environ.get("PROVISION_TESTS_LIKE")  # runs all tests on hosts like this system, such as ubuntu-26.04
HarnessFactory = Callable[..., Harness]


def release(lab: Lab, host: str) -> tuple[str, str]:
    """The system and the release that a host says it is: ("debian", "trixie"), ("ubuntu", "noble")."""
    system = lab.system(lab.machine(host).host)
    return system, lab.image.codenames[system]


def mark_as_lab(items: Sequence[pytest.Item], folder: Path) -> None:
    """Marks all tests in `folder`. They boot hosts, so they are skipped without root or Linux."""
    missing = "not Linux" if sys.platform != "linux" else "not root" if os.geteuid() != 0 else ""
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.lab)
            if missing:
                item.add_marker(
                    pytest.mark.skip(reason=f"boots real hosts: needs root on Linux, and this is {missing}")
                )


@pytest.fixture(scope="module")
def lab_factory() -> Iterator[Callable[..., Lab]]:
    """Boots a lab: `lab_factory(LabHost("gitlab"), …)`. It is removed when the module's tests have run."""
    labs: list[Lab] = []

    def boot(*hosts: LabHost, **options: object) -> Lab:
        if _LIKE:
            options.setdefault("image", Image.like(_LIKE))
        if any(host.prepared for host in hosts):
            options["prepared"] = preparing.ensure(options.get("image", Image()))  # type: ignore[arg-type]
        lab = Lab(f"t{os.getpid()}-{next(_numbers)}", hosts, throwaway=True, **options)  # type: ignore[arg-type]
        labs.append(lab)
        lab.up()
        return lab

    yield boot
    for lab in labs:
        lab.down()


@pytest.fixture(scope="module")
def harness_factory(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> HarnessFactory:
    """Boots a lab with an inventory and the program to run on it: `harness.run("all", "--check")`."""

    def boot(*hosts: LabHost, **options: object) -> Harness:
        return Harness(lab_factory(*hosts, **options), tmp_path_factory.mktemp("harness"))

    return boot

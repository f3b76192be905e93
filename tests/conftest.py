"""What all tests share: the order of files, and what makes them cheaper.

With several workers, the longest files start first, so that no worker is left alone with one at the end.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent
# Files that take one to three minutes on a busy machine, by the processor time that they and their hosts take.
LONGEST = (
    *("lab/test_bare_hosts", "lab/test_examples", "lab/test_image_and_deploy", "lab/test_playbook_all"),
    *("lab/test_pipelines", "lab/test_first_contact", "lab/test_speed", "faults/test_fault_images_and_apps"),
    "lab/test_tutorial",
    *("lab/test_like_ubuntu_26_04", "faults/test_fault_secrets", "faults/test_reconfigure_health"),
    *("lab/test_certificates_omnibus", "lab/test_task_docker", "lab/test_task_verify", "lab/test_lab_itself"),
    *("lab/test_images_on_host", "faults/test_storage_switch", "faults/test_fault_killed_gitlab"),
    *("faults/test_reconfigure_killed", "lab/test_standin_gitlab_lab", "faults/test_register_faults"),
    *("faults/test_fault_apt", "faults/test_jobs_go_on", "faults/test_lockout_killed", "lab/test_rehearsal"),
    *("lab/test_playbook_own", "faults/test_fault_verify", "lab/test_runners_life", "lab/test_behind_a_proxy"),
    "faults/test_storage_in_time",
)
FOLDERS = ("faults", "lab", "standins", "unit", "property")  # the short files that need only a processor come last

# Every run has the same examples, so that a new failure comes from the last change. HYPOTHESIS_PROFILE=thorough searches for
# new examples. There is no deadline, because the time of an example depends on what else runs on the machine.
settings.register_profile(
    "repeatable",
    derandomize=os.environ.get("HYPOTHESIS_PROFILE") != "thorough",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")


@pytest.fixture(scope="module")
def omnibus() -> Iterator[Any]:
    """One Ruby for all gitlab.rb of a module, for unit and property tests."""
    from tests.support.omnibus_ruby import Omnibus  # it imports the editor

    process = Omnibus()
    yield process
    process.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the files and marks those of tests/unit; the tests of a file keep their order."""
    items.sort(key=lambda item: rank(item.path))
    for item in items:
        if item.path.is_relative_to(TESTS / "unit"):
            item.add_marker(pytest.mark.unit)


def pytest_collection_finish() -> None:
    """Leaves what was imported and collected out of Python's search for garbage, which took a fifth of the tests' time."""
    gc.collect()
    gc.freeze()


def rank(path: Path) -> tuple[int, int]:
    """The place of a file: first by its own name, then by its folder."""
    name = path.relative_to(TESTS).with_suffix("").as_posix()
    folder = name.partition("/")[0]
    return LONGEST.index(name) if name in LONGEST else len(LONGEST), FOLDERS.index(folder)

"""Unused images and stopped containers: the change and its message. test_image_scripts.py runs the script."""

from __future__ import annotations

import pytest

from provision.errors import ProbeFailed
from provision.host.docker import read_containers
from provision.resources import Result, UnusedImages
from provision.resources.delivery.image import bytes_of, human
from provision.secret import Secret
from provision.testing import observe, planned

IDENTITY = "sha256:" + "1" * 64
LINES = (
    f"container|{'2' * 64}|1.5kB (virtual 3MB)|gone\nimage|{IDENTITY}|41.06MB|old:1 old:2 \nimage|{IDENTITY}|448B|\n"
)


def test_what_would_go() -> None:
    """Names, and the space that it frees."""
    wanted = UnusedImages(14, ("hello:1",))
    (change,) = planned(wanted, observe(wanted, LINES))
    assert change.summary == (
        "remove 1 stopped container (gone) and 2 unused images (old:1 old:2, 111111111111): frees at least 41.1 MB"
    )
    assert change.action == "delete"
    assert "-image old:1 old:2 41.06MB\n" in change.diff
    assert str(wanted.probe()[""].script).startswith("# prune_docker.sh\nset -- list 14 hello:1\n")  # type: ignore[union-attr]


def test_build_cache() -> None:
    """Its entries are counted, beside the others and alone."""
    wanted, cache = UnusedImages(14), "cache|abc|1MB|\ncache|def|2MB|\n"
    (change,) = planned(wanted, observe(wanted, cache + f"image|{IDENTITY}|1MB|old:1 \n" + "container|1|1kB|gone\n"))
    assert change.summary == (
        "remove 1 stopped container (gone), 1 unused image (old:1) and 2 entries of the build cache: frees at least 4 MB"
    )
    (change,) = planned(wanted, observe(wanted, cache[: len(cache) // 2]))
    assert change.summary == "remove 1 entry of the build cache: frees at least 1 MB"


def test_many_are_not_all_named() -> None:
    """One line stays one line."""
    wanted = UnusedImages(0)
    (change,) = planned(wanted, observe(wanted, "".join(f"image|{IDENTITY}|1MB|i:{n} \n" for n in range(12))))
    assert "i:9 and 2 more)" in change.summary


@pytest.mark.parametrize("seen", ["", "\n"])
def test_nothing_to_remove(seen: str) -> None:
    """No change."""
    assert planned(UnusedImages(14), observe(UnusedImages(14), seen)) == []


def test_docker_that_does_not_answer() -> None:
    """It is no empty host."""
    with pytest.raises(ProbeFailed, match="Cannot connect"):
        planned(UnusedImages(14), observe(UnusedImages(14), Result(b"", b"Cannot connect to the daemon", 1)))


SIZES = [
    ("448B", 448, "448 B"),
    ("41.06MB", 41.06e6, "41.1 MB"),
    ("1.2GB", 1.2e9, "1.2 GB"),
    ("0B", 0, "0 B"),
    ("?", 0, "0 B"),
]


@pytest.mark.parametrize(("text", "number", "shown"), SIZES)
def test_sizes(text: str, number: float, shown: str) -> None:
    """As Docker writes them."""
    assert bytes_of(text) == pytest.approx(number)
    assert human(bytes_of(text)) == shown


def test_no_part_of_a_secret_is_left_where_an_error_is_cut() -> None:
    """Docker's error and its unexpected output are masked before they are cut."""
    Secret("canary-0f2b-11-22")
    error = Result(b"", f"canary-0f2b-11-22{'x' * 290}".encode(), 1)
    with pytest.raises(ProbeFailed) as failed:
        planned(UnusedImages(14), observe(UnusedImages(14), error))
    assert "11-22" not in str(failed.value)
    with pytest.raises(ProbeFailed) as failed:
        read_containers(Result(f"{'x' * 190}canary-0f2b-11-22".encode()))
    assert "canary" not in str(failed.value)

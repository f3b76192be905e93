"""The order in which files of tests start."""

from tests.conftest import LONGEST, TESTS


def test_the_files_that_start_first_exist() -> None:
    """A renamed file would start somewhere else without a word."""
    assert [name for name in LONGEST if not (TESTS / f"{name}.py").is_file()] == []

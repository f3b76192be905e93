"""Questions put together are answered as if each had been asked alone; what is odd is asked alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from provision.engine.observe import Eyes
from provision.resources.base import Ask
from provision.resources.system.file import AskFile, ask_file
from provision.resources.system.systemd import AskUnit, Service
from provision.shell import Command, Result, sh
from provision.testing import FakeSession, LocalSession

Make = Callable[[Path], object]


def _bytes(content: bytes) -> Make:
    return lambda path: path.write_bytes(content)


@pytest.fixture
def session() -> LocalSession:
    """This machine as a host."""
    return LocalSession({})


FILES: dict[str, Make] = {
    "plain": _bytes(b"one\ntwo\n"),
    "empty": _bytes(b""),
    "no-line-end": _bytes(b"there\nabsent"),
    "binary": _bytes(bytes(range(256)) * 40),
    "a name with 'quotes'": _bytes(b"quoted\n"),
    "missing": lambda _: None,
    "dangling": lambda path: path.symlink_to("nowhere"),
    "link": lambda path: path.symlink_to("plain"),
    "secret": lambda path: (path.write_bytes(b"x"), path.chmod(0o600)),
}


def make(folder: Path, names: dict[str, Make]) -> list[Command]:
    """The files, and a question about each."""
    for name, one in names.items():
        one(folder / name)
    return [ask_file(str(folder / name)) for name in names]


def test_files_together_are_what_each_is_alone(session: LocalSession, tmp_path: Path) -> None:
    """Whatever they hold and are called; one command for all."""
    questions = make(tmp_path, FILES)
    alone = session.ask(questions, deadline=10)
    eyes = Eyes(session)
    eyes.look(questions)
    assert [eyes.answer(one) for one in questions] == alone
    assert [len(look) for look in session.looks] == [len(questions), 1]


def test_what_is_no_plain_file_is_asked_alone(session: LocalSession, tmp_path: Path) -> None:
    """A folder spoils the joint answer: each is then asked by itself, in one batch more."""
    questions = make(tmp_path, {"plain": FILES["plain"], "folder": lambda path: path.mkdir()})
    eyes = Eyes(session)
    eyes.look([*questions, sh("echo other")])
    assert [eyes.answer(one).code for one in questions] == [0, 1]
    assert eyes.answer(questions[0]).stdout.endswith(b"\none\ntwo\n")
    assert [len(look) for look in session.looks] == [2, 2]


def test_a_file_that_changes_between_stat_and_cat_is_asked_alone(tmp_path: Path) -> None:
    """Sizes that do not add up cannot be cut by."""
    questions = [AskFile("", path=str(tmp_path / name)) for name in "ab"]
    grown = Result(b"there\nthere\n0644 root:root 2\n0644 root:root 2\nab\nmore\n")
    assert AskFile.split(questions, grown) is None


@pytest.mark.parametrize("answer", [Result(b"there\n"), Result(b"", code=1), Result(b"")])
def test_a_broken_answer_about_files_is_no_answer(answer: Result) -> None:
    """Cut short, or refused."""
    assert AskFile.split([AskFile("", path="/a"), AskFile("", path="/b")], answer) is None


def test_one_question_goes_as_it_is(tmp_path: Path) -> None:
    """Nothing is gained by joining one."""
    session = FakeSession()
    question = ask_file(str(tmp_path / "plain"))
    Eyes(session).look([question])
    assert session.looks == [[question]]


def test_units_together() -> None:
    """A block for each, parted by an empty line; a failed question is asked alone."""
    questions = [question for name in ("a", "b") for question in Service(name).probe().values()]
    one, two = b"LoadState=loaded\nActiveState=active\nUnitFileState=enabled", b"LoadState=not-found\n"
    session = FakeSession({"show a b": one + b"\n\n" + two})
    eyes = Eyes(session)
    eyes.look(questions)
    assert [eyes.answer(question).stdout for question in questions] == [one, two]
    assert [len(look) for look in session.looks] == [1]
    assert AskUnit.split([AskUnit("", unit="a"), AskUnit("", unit="b")], Result(b"", code=1)) is None


def test_what_a_call_needs_travels_with_the_rest() -> None:
    """An API's look that rests on the host's answer costs no round trip of its own."""
    session = FakeSession({"who": "it\n"})
    call = Ask("key", lambda need: Result(need.stdout * 2 if need else b""), needs=sh("who"))
    eyes = Eyes(session)
    eyes.look([call, sh("other")])
    assert eyes.answer(call).stdout == b"it\nit\n"
    assert [len(look) for look in session.looks] == [2]
    eyes.look([call])
    assert len(session.looks) == 1

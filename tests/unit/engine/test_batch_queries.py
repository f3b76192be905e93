"""Combined questions have the answers that each has alone; what cannot be combined is asked alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provision.engine.desired_state import Owned
from provision.engine.observe import Observer
from provision.resources.base import ApiQuery, Change, Note, Observation, Probe, Resource
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
    """Creates the files; a question about each."""
    for name, one in names.items():
        one(folder / name)
    return [ask_file(str(folder / name)) for name in names]


def test_combined_files_are_answered_as_each_alone(session: LocalSession, tmp_path: Path) -> None:
    """Whatever their content and names; one command for all."""
    questions = make(tmp_path, FILES)
    alone = session.ask(questions, deadline=10)
    observer = Observer(session)
    observer.ask(questions)
    assert [observer.answer(one) for one in questions] == alone
    assert [len(look) for look in session.batches] == [len(questions), 1]


def test_anything_but_a_regular_file_is_asked_alone(session: LocalSession, tmp_path: Path) -> None:
    """The combined answer cannot be used for a folder: each is then asked alone, in one more batch."""
    questions = make(tmp_path, {"plain": FILES["plain"], "folder": lambda path: path.mkdir()})
    observer = Observer(session)
    observer.ask([*questions, sh("echo other")])
    assert [observer.answer(one).code for one in questions] == [0, 1]
    assert observer.answer(questions[0]).stdout.endswith(b"\none\ntwo\n")
    assert [len(look) for look in session.batches] == [2, 2]


def test_a_file_that_changes_between_stat_and_cat_is_asked_alone(tmp_path: Path) -> None:
    """Its size does not fit the answer."""
    questions = [AskFile("", path=str(tmp_path / name)) for name in "ab"]
    grown = Result(b"there\nthere\n0644 root:root 2\n0644 root:root 2\nab\nmore\n")
    assert AskFile.split(questions, grown) is None


@pytest.mark.parametrize("answer", [Result(b"there\n"), Result(b"", code=1), Result(b"")])
def test_a_broken_answer_is_not_used(answer: Result) -> None:
    """Truncated, or failed."""
    assert AskFile.split([AskFile("", path="/a"), AskFile("", path="/b")], answer) is None


def test_a_single_question_is_not_combined(tmp_path: Path) -> None:
    """It is sent as it is."""
    session = FakeSession()
    question = ask_file(str(tmp_path / "plain"))
    Observer(session).ask([question])
    assert session.batches == [[question]]


def test_units() -> None:
    """A block for each, separated by an empty line; a failed question is asked alone."""
    questions = [question for name in ("a", "b") for question in Service(name).probe().values()]
    one, two = b"LoadState=loaded\nActiveState=active\nUnitFileState=enabled", b"LoadState=not-found\n"
    session = FakeSession({"show a b": one + b"\n\n" + two})
    observer = Observer(session)
    observer.ask(questions)
    assert [observer.answer(question).stdout for question in questions] == [one, two]
    assert [len(look) for look in session.batches] == [1]
    assert AskUnit.split([AskUnit("", unit="a"), AskUnit("", unit="b")], Result(b"", code=1)) is None


def test_what_an_api_query_needs_travels_with_the_rest() -> None:
    """A query that needs the host's answer costs no round trip of its own, and is made once."""
    session = FakeSession({"who": "it\n"})

    class Remote(Resource):
        label = "Remote"

        def probe(self) -> Probe:
            query = ApiQuery("key", lambda seen: seen.text * 2, needs=sh("who"))
            return Probe({"api": query, "other": sh("other")})

        def plan(self, seen: Observation) -> Iterator[Change | Note]:
            del seen
            yield from ()

    observer, item = Observer(session), Owned("task", Remote())
    observer.observe([item])
    assert observer.observation(item).data("api") == "it\nit\n"
    assert [one.script for one in session.batches[0]][2:] == ["who", "other"]
    observer.observe([item])
    assert len(session.batches) == 1

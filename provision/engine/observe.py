"""Observing a host: the questions of all resources in one batch, equal questions asked once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any

from provision.engine.desired_state import Owned
from provision.errors import ProbeFailed, ProvisionError, as_provision_error
from provision.host.pending import ASK_PENDING
from provision.host.state import ASK_STATE, STATE, HostState
from provision.resources.base import ApiQuery, BatchQuery, Known, Observation, Probe, Question
from provision.shell import Command, Result
from provision.ssh.session import Session


class ResourceError(Exception):
    """An error, and the name of the resource that it concerns."""

    def __init__(self, resource: str, error: ProvisionError) -> None:
        super().__init__(str(error))
        self.resource = resource
        self.error = error


Batch = tuple[type[BatchQuery], list[BatchQuery]]
DEADLINE = 120.0  # seconds for one batch of questions; a healthy host needs well under one


class Observer:
    """The observations of one host. Call `forget` after a change, which makes them outdated.

    claimed  returns the keys that tasks other than the given one claim on this host
    is_due   returns whether the verifications of the given task are due
    """

    def __init__(
        self,
        session: Session,
        claimed: Callable[[str], Set[str]] = lambda _: frozenset(),
        is_due: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._session = session
        self._claimed = claimed
        self._is_due = is_due
        self._answers: dict[Hashable, Any] = {}
        self._probes: dict[
            int, tuple[Owned, Probe]
        ] = {}  # by id of the item, which is kept so that its id is not reused
        self._state: HostState | None = None

    @property
    def state(self) -> HostState:
        """What is recorded on the host. It is read once; the engine keeps it up to date. Raises ProbeFailed."""
        if self._state is None:
            try:
                self._state = HostState.parse(self.answer(ASK_STATE).text)
            except ValueError as error:
                raise ProbeFailed(
                    f"{STATE} cannot be read: {error}",
                    hint="fix the file, or remove it: then settings of earlier runs are not removed from the host when "
                    "they are removed from the inventory",
                ) from error
        return self._state

    def observe(self, items: Iterable[Owned]) -> None:
        """Asks all open questions: those for the host in one round trip, then those for APIs."""
        questions = [(item, question) for item in items for question in self._questions(item).values()]
        commands = [question if isinstance(question, Command) else question.needs for _, question in questions]
        first = [ASK_PENDING, ASK_STATE] if self._state is None else [ASK_PENDING]
        self.ask([*first, *(one for one in commands if one is not None)])
        for item, question in questions:
            if isinstance(question, ApiQuery):
                self._call(item, question)

    def ask(self, commands: Iterable[Command]) -> None:
        """Runs the commands that have no answer yet, in one round trip."""
        self._ask(*_batches([one for one in dict.fromkeys(commands) if one not in self._answers]))

    def answer(self, command: Command) -> Result:
        """The answer to one command, which is run now if it has no answer yet."""
        if command not in self._answers:
            self.ask([command])
        result: Result = self._answers[command]
        return result

    def observation(self, item: Owned) -> Observation:
        """Everything that is known about a resource. Open questions are asked now."""
        return Observation(
            {name: self._answer(item, question) for name, question in self._questions(item).items()}, self._known(item)
        )

    def forget(self) -> None:
        """Discards all answers."""
        self._answers.clear()
        self._probes.clear()

    def _answer(self, item: Owned, question: Question) -> Any:
        return self.answer(question) if isinstance(question, Command) else self._call(item, question)

    def _call(self, item: Owned, query: ApiQuery) -> Any:
        key = (query, item.owner, self._is_due(item.owner))
        if key not in self._answers:
            needed = {Probe.ONLY: self.answer(query.needs)} if query.needs else {}
            with named(item):
                self._answers[key] = query.call(Observation(needed, self._known(item)))
        return self._answers[key]

    def _questions(self, item: Owned) -> Mapping[str, Question]:
        kept = self._probes.get(id(item))
        if kept is None:
            with named(item):
                kept = self._probes[id(item)] = (item, item.resource.probe())
        return kept[1].questions(self._is_due(item.owner))

    def _known(self, item: Owned) -> Known:
        key, state = item.resource.record_key, self.state
        return Known(
            state.record(item.owner, key) if key else None,
            state.others(item.owner, key) if key else {},
            state.records(item.owner),
            self._claimed(item.owner),
            self._is_due(item.owner),
            lambda: state.fingerprint_key,
        )

    def _ask(self, single: list[Command], batches: list[Batch]) -> None:
        commands = [*single, *(kind.join(questions) for kind, questions in batches)]
        if not commands:
            return
        results = self._session.ask(commands, deadline=DEADLINE)
        self._answers.update(zip(single, results, strict=False))
        left: list[Command] = []
        for (kind, questions), result in zip(batches, results[len(single) :], strict=True):
            answers = kind.split(questions, result)
            if answers is None:
                left += questions
            else:
                self._answers.update(zip(questions, answers, strict=True))
        self._ask(left, [])


@contextmanager
def named(item: Owned) -> Iterator[None]:
    """Names the resource in an exception that its code does not handle. ProvisionErrors are raised as they are."""
    try:
        yield
    except (ProvisionError, ResourceError):
        raise
    except Exception as error:
        raise ResourceError(item.label, as_provision_error(error)) from error


def _batches(commands: list[Command]) -> tuple[list[Command], list[Batch]]:
    """The commands to be asked alone, and by class those that can be combined."""
    kinds: dict[type[BatchQuery], list[BatchQuery]] = {}
    for one in commands:
        if isinstance(one, BatchQuery):
            kinds.setdefault(type(one), []).append(one)
    batches = [(kind, questions) for kind, questions in kinds.items() if len(questions) > 1]
    combined = {one for _, questions in batches for one in questions}
    return [one for one in commands if one not in combined], batches

"""Observing a host: the questions of all resources in one batch, equal questions asked once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

from provision.engine.desired_state import Owned
from provision.engine.waiting import Stopped, Waiting
from provision.errors import ApiFailed, ProbeFailed, ProvisionError, as_provision_error
from provision.host.pending import ASK_PENDING
from provision.host.scripts import NOT_READY
from provision.host.state import ASK_STATE, STATE, HostState
from provision.masking import last_lines
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


class Questions(NamedTuple):
    """Questions that are sent together with changes, and asked after them."""

    single: list[Command]
    batches: list[Batch]

    @property
    def commands(self) -> list[Command]:
        """What the host is asked."""
        return [*self.single, *(kind.join(questions) for kind, questions in self.batches)]


class Observer:
    """The observations of one host. Call `forget` after a change, which makes them outdated.

    claimed  returns the keys that tasks other than the given one claim on this host
    is_due   returns whether the verifications of the given task are due
    waiting  how to wait for GitLab; None: not at all
    outdated  is called whenever the answers are discarded
    """

    def __init__(
        self,
        session: Session,
        claimed: Callable[[str], Set[str]] = lambda _: frozenset(),
        is_due: Callable[[str], bool] = lambda _: False,
        waiting: Waiting | None = None,
        outdated: Callable[[], None] = lambda: None,
    ) -> None:
        self._session = session
        self._outdated = outdated
        self._waiting = waiting
        self._claimed = cache(claimed)  # it is called for every resource
        self._is_due = is_due
        self._answers: dict[Hashable, Any] = {}
        self._probes: dict[Owned, Probe] = {}  # whose questions were asked: a later probe may have others
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

    def observe(self, items: Sequence[Owned], later: Sequence[Owned] = ()) -> None:
        """Asks all open questions: those for the host in one round trip, then those for APIs.

        later  resources that are needed after `items`: if a question of `items` is open, theirs are asked with it

        It does not wait for GitLab: what is not answered for this reason is asked again by `observation`.
        """
        if ASK_PENDING in self._answers and all(map(self.is_observed, items)):
            return
        questions = [(item, question) for item in [*items, *later] for question in self._questions(item).values()]
        first = [ASK_PENDING, ASK_STATE] if self._state is None else [ASK_PENDING]
        for one in self._ask_open([*first, *_commands(question for _, question in questions)]):
            del self._answers[one]
        for item, question in questions:
            if isinstance(question, ApiQuery) and (question.needs is None or question.needs in self._answers):
                self._call(item, question, wait=False)

    def is_observed(self, item: Owned) -> bool:
        """Whether `observe` got the answers to all questions of a resource."""
        questions = self._questions(item).values()
        return all((one if isinstance(one, Command) else self._key(item, one)) in self._answers for one in questions)

    def ask(self, commands: Iterable[Command]) -> None:
        """Runs the commands that have no answer yet, in one round trip; those that need GitLab until it is ready."""
        wanted, starting = list(commands), dict[Command, str]()

        def attempt() -> str:
            for one in starting:
                del self._answers[one]
            starting.clear()
            starting.update(self._ask_open(wanted))
            return next(iter(starting.values()), "")

        self._until_ready(attempt)

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
        self._outdated()
        self._answers.clear()
        self._probes.clear()

    def questions(self, items: Sequence[Owned], later: Sequence[Owned], *, due: bool) -> Questions:
        """The questions that `observe` would ask after `forget`.

        due  whether to include all verifications of other tasks, because the changes make them due
        """
        asked = [ASK_PENDING]
        for item in items:
            asked += _commands(self._questions(item).values())
        for item in later:
            with named(item):
                asked += _commands(item.probe.questions(due or self._is_due(item.owner)).values())
        return Questions(*_batches(list(dict.fromkeys(asked))))

    def renew(self, questions: Questions, results: Sequence[Result]) -> None:
        """Discards all answers, and keeps these, which the host gave after the last change.

        Three kinds of questions are asked again: those that differ by now, such as signed requests; those that met a GitLab
        that was starting; and those whose answer cannot be read.
        """
        self.forget()
        self._keep(questions, results)
        for one in [one for one, result in self._answers.items() if result.code == NOT_READY]:
            del self._answers[one]

    def _answer(self, item: Owned, question: Question) -> Any:
        return self.answer(question) if isinstance(question, Command) else self._call(item, question)

    def _call(self, item: Owned, query: ApiQuery, *, wait: bool = True) -> Any:
        """The answer to an API query. While GitLab starts, it is called again; without `wait` it stays open then."""
        key = self._key(item, query)
        if key in self._answers:
            return self._answers[key]
        seen = Observation({Probe.ONLY: self.answer(query.needs)} if query.needs else {}, self._known(item))
        found: Any = None
        error: ApiFailed | None = None

        def attempt() -> str:
            nonlocal found, error
            try:
                with named(item), self._rate_limits():
                    found, error = query.call(seen), None
            except ApiFailed as problem:
                found = error = problem
            return found.text if isinstance(found, ApiFailed) and found.not_ready else ""

        if wait:
            self._until_ready(attempt)
        elif attempt():
            return None
        if error is not None:
            raise error
        self._answers[key] = found
        return found

    def _key(self, item: Owned, query: ApiQuery) -> Hashable:
        return (query, item.owner, self._is_due(item.owner))

    def _rate_limits(self) -> AbstractContextManager[None]:
        return self._waiting.rate_limits("observe") if self._waiting else nullcontext()

    def _until_ready(self, attempt: Callable[[], str]) -> None:
        if self._waiting is None:
            attempt()
        else:
            self._waiting.until_ready(attempt, "observe")

    def _questions(self, item: Owned) -> Mapping[str, Question]:
        probe = self._probes.get(item)
        if probe is None:
            with named(item):
                probe = self._probes[item] = item.probe
        return probe.questions(self._is_due(item.owner))

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

    def _ask_open(self, commands: Iterable[Command]) -> dict[Command, str]:
        """Runs the commands that have no answer yet. Returns those that met a GitLab that was starting, with the reasons."""
        asked = [one for one in dict.fromkeys(commands) if one not in self._answers]
        self._ask(Questions(*_batches(asked)))
        starting = [one for one in asked if self._answers[one].code == NOT_READY]
        return {one: last_lines(self._answers[one].errors, 1) or "it is not ready" for one in starting}

    def _ask(self, questions: Questions) -> None:
        """Asks the host. Questions whose common answer cannot be split are asked once more, one by one."""
        while commands := questions.commands:
            results = self._session.ask(commands, deadline=DEADLINE)
            questions = Questions(self._keep(questions, results), [])

    def _keep(self, questions: Questions, results: Sequence[Result]) -> list[Command]:
        """Keeps the answers. Returns the questions whose common answer cannot be split: they must be asked one by one."""
        self._answers.update(zip(questions.single, results, strict=False))
        left: list[Command] = []
        for (kind, asked), result in zip(questions.batches, results[len(questions.single) :], strict=True):
            answers = kind.split(asked, result)
            if answers is None:
                left += asked
            else:
                self._answers.update(zip(asked, answers, strict=True))
        return left


class named:
    """Names the resource in an exception that its code does not handle. ProvisionErrors are raised as they are."""

    def __init__(self, item: Owned) -> None:
        self._item = item

    def __enter__(self) -> None:
        """Does nothing. This is a class and not a generator because it is used several times for each resource."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, ProvisionError | ResourceError | Stopped):
            raise ResourceError(self._item.label, as_provision_error(error)) from error


def _commands(questions: Iterable[Question]) -> list[Command]:
    """The commands for the host: the questions that are commands, and those that API queries need."""
    commands = [one if isinstance(one, Command) else one.needs for one in questions]
    return [one for one in commands if one is not None]


def _batches(commands: list[Command]) -> tuple[list[Command], list[Batch]]:
    """The commands to be asked alone, and by class those that can be combined."""
    kinds: dict[type[BatchQuery], list[BatchQuery]] = {}
    for one in commands:
        if isinstance(one, BatchQuery):
            kinds.setdefault(type(one), []).append(one)
    batches = [(kind, questions) for kind, questions in kinds.items() if len(questions) > 1]
    combined = {one for _, questions in batches for one in questions}
    return [one for one in commands if one not in combined], batches

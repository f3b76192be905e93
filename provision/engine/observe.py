"""Looking at a host: all questions of all resources in one batch, equal ones asked once."""

from __future__ import annotations

from collections.abc import Iterable

from provision.resources.base import Ask, Observation, Probe, Question, Resource, Together
from provision.shell import Command, Result
from provision.ssh.session import Session

Group = tuple[type[Together], list[Together]]
LOOK_DEADLINE = 120.0  # seconds for one batch of probes; a healthy host needs well under one


class Eyes:
    """What has been seen of one host. `forget` after each change: what was seen holds no more."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._answers: dict[Question, Result] = {}
        self._probes: dict[
            int, tuple[Resource, Probe]
        ] = {}  # by id; the resource is kept, so that its id stays its own

    def look(self, questions: Iterable[Question]) -> None:
        """Asks those questions that have no answer yet: the host's in one round trip, then the APIs'."""
        missing = [one for one in dict.fromkeys(questions) if one not in self._answers]
        calls = [one for one in missing if isinstance(one, Ask)]
        wanted: dict[Question, None] = dict.fromkeys([*missing, *(one.needs for one in calls if one.needs)])
        self._ask(*_joined([one for one in wanted if isinstance(one, Command) and one not in self._answers]))
        for one in calls:
            self._answers[one] = one.call(self._answers[one.needs] if one.needs else None)

    def _ask(self, single: list[Command], groups: list[Group]) -> None:
        commands = [*single, *(kind.join(questions) for kind, questions in groups)]
        if not commands:
            return
        results = self._session.ask(commands, deadline=LOOK_DEADLINE)
        self._answers.update(zip(single, results, strict=False))
        left: list[Command] = []
        for (kind, questions), result in zip(groups, results[len(single) :], strict=True):
            answers = kind.split(questions, result)
            if answers is None:
                left += questions
            else:
                self._answers.update(zip(questions, answers, strict=True))
        self._ask(left, [])

    def look_at(self, resources: Iterable[Resource], *more: Question) -> None:
        """One batch for many resources."""
        self.look([*more, *(question for resource in resources for question in self._probe(resource).values())])

    def answer(self, question: Question) -> Result:
        """One question's answer, asked now if it was not yet."""
        if question not in self._answers:
            self.look([question])
        return self._answers[question]

    def seen(self, resource: Resource) -> Observation:
        """A resource's answers, under its probe's names."""
        return Observation({name: self.answer(question) for name, question in self._probe(resource).items()})

    def _probe(self, resource: Resource) -> Probe:
        kept = self._probes.get(id(resource))
        if kept is None:
            kept = self._probes[id(resource)] = (resource, resource.probe())
        return kept[1]

    def forget(self) -> None:
        """Everything seen so far no longer holds."""
        self._answers.clear()
        self._probes.clear()


def _joined(commands: list[Command]) -> tuple[list[Command], list[Group]]:
    """Those to be asked alone, and by kind those that are cheaper put together."""
    kinds: dict[type[Together], list[Together]] = {}
    for one in commands:
        if isinstance(one, Together):
            kinds.setdefault(type(one), []).append(one)
    groups = [(kind, questions) for kind, questions in kinds.items() if len(questions) > 1]
    grouped = {one for _, questions in groups for one in questions}
    return [one for one in commands if one not in grouped], groups

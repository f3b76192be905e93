"""What a resource is made of: pure values, nothing here runs anything.

A resource says what to look at (`probe`), and, given what was seen, what is left to do (`plan`).
Both are pure. The engine sends the probes of all resources of a host in one script, and is the only
one that carries changes out.

Questions that are cheaper put together: each process on a host costs it a millisecond or two, on every look.

A resource asks as if it were alone. The engine puts the questions of one kind that a host is asked into one
command, and takes the answer apart; where that cannot be done they are asked one by one, as they stand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from provision.errors import ApiFailed
from provision.host.pending import Handler, handlers_of
from provision.shell import Command, Result

Action = Literal["create", "update", "delete", "run"]
Json = Any


@dataclass(frozen=True)
class Ask:
    """A look at something that is not on the host: an API, asked from the controller.

    Equal keys are asked once. `call` is given the answer to `needs`, a question to the host, and returns what a
    command would have printed.
    """

    key: Hashable
    call: Callable[[Result | None], Result] = field(compare=False, repr=False)
    needs: Command | None = None


Question = Command | Ask


class Probe(dict[str, Question]):
    """Named questions of one resource; equal questions of a host are asked once.

    One unnamed question: `Probe.of(sh(…))`, read back as `seen.text` and `seen.code`.
    """

    ONLY: ClassVar[str] = ""

    @classmethod
    def of(cls, question: Question) -> Probe:
        """A probe of a single question."""
        return cls({cls.ONLY: question})


class Observation(dict[str, Result]):
    """The answers, under the names of the probe."""

    @property
    def only(self) -> Result:
        """The answer to a probe of one question."""
        return self[Probe.ONLY]

    @property
    def text(self) -> str:
        """The one answer's stdout."""
        return self.only.text

    @property
    def code(self) -> int:
        """The one answer's exit code."""
        return self.only.code


@dataclass(frozen=True)
class Call:
    """A change that starts at an API: `make` does it, and returns what the host must do right after and remember."""

    make: Callable[[], tuple[Command, Mapping[str, Json]]] = field(repr=False)
    describe: str = ""


@dataclass(frozen=True)
class Guard:
    """What takes a change back unless a fresh login succeeds within `seconds`. `undo` reads no input.

    UNIT  the host's systemd timer: while it is there, what it guards is not confirmed
    """

    UNIT: ClassVar[str] = "provision-guard"

    undo: Command
    seconds: int = 60


@dataclass(frozen=True)
class Change:
    """One thing that is left to do, with all that the engine needs to do it.

    summary    in words, after "will" or "did": "start docker"
    run        the command, or the API call that yields one
    diff       a unified diff, secrets masked
    notify     what is owed once this is done; written on the host before the change
    remember   entries of the host's state.json that this change sets (None takes one out)
    deadline   seconds
    detached   goes on when the connection breaks; the next connection picks its result up
    leaves     False for a proof, which changes nothing that stays: it is run, and not counted
    guard      the change could lock us out: it takes itself back unless a fresh login succeeds
    last       judges what the task's other changes may mend: run when none is left, on a fresh look
    waits_for  what must be there first and is not: shown as predicted, refused when it is applied
    remedy     what to do when that does not come; "": run the task that it waits for
    """

    summary: str
    run: Command | Call
    action: Action = "update"
    diff: str = ""
    notify: tuple[Handler, ...] = ()
    remember: Mapping[str, Json] = field(default_factory=dict)
    deadline: float = 60.0
    detached: bool = False
    leaves: bool = True
    guard: Guard | None = None
    last: bool = False
    waits_for: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Note:
    """Something the reader should know, that is not a change."""

    text: str


class Resource(ABC):
    """One noun of the wanted state. Subclasses are frozen dataclasses.

    libraries  modules that `plan` imports itself because they take long: they are imported while the host answers
    """

    libraries: ClassVar[tuple[str, ...]] = ()

    @property
    def handlers(self) -> tuple[Handler, ...]:
        """The work that its changes may owe: what stands in its field `notify`, where it has one."""
        return handlers_of(getattr(self, "notify", ()))

    @property
    def label(self) -> str:
        """Its name in plans and events: by default its class and its first field, `File /etc/docker/daemon.json`."""
        first = list(getattr(self, "__dataclass_fields__", ()))[:1]
        return " ".join([type(self).__name__, *(str(getattr(self, name)) for name in first)])

    @abstractmethod
    def probe(self) -> Probe:
        """What to look at."""

    @abstractmethod
    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        """What is left to do. Raises a HostFailed (Refused, ProbeFailed) where nothing may be done."""


@dataclass(frozen=True)
class Together(Command):
    """A question that can be put together with others of its class. `script` asks it alone."""

    @classmethod
    @abstractmethod
    def join(cls, questions: Sequence[Any]) -> Command:
        """One command for all of them."""

    @classmethod
    @abstractmethod
    def split(cls, questions: Sequence[Any], result: Result) -> list[Result] | None:
        """What each of them alone would have been answered, in order; None where that cannot be told."""


def unproven(what: str, why: str) -> Change:
    """A proof that fails behind all that could be done: the run says, by its exit code too, that it is not known."""

    def fail() -> tuple[Command, Mapping[str, Json]]:
        raise ApiFailed(
            f"{what}: {why}", hint="nothing is done on a guess: once GitLab answers, run the same command again"
        )

    return Change(what, Call(fail), "run", leaves=False, last=True)

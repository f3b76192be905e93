"""The parts of a resource. Everything here is a value; nothing here runs a command.

A resource names the questions that it needs answered (`probe`) and, given the answers, the necessary changes
(`plan`). Both are pure. The engine sends the questions of all resources of a host in one script, and only the engine
applies changes.

Each resource belongs to the task that yielded it, its owner. The owner's record under the resource's
`record_key` is `Observation.record`; the records of other owners under the same key are `Observation.others`.
"""

from __future__ import annotations

import enum
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Final, Literal, NamedTuple

from provision.errors import ApiFailed, UsageError
from provision.host.pending import Handler, handlers_of
from provision.inventory import Settings
from provision.shell import Command, Result, sh

Action = Literal["create", "update", "delete", "run"]
Json = Any

NOTHING: Final = Command(":")
"""A command without an effect: for changes that only record something, notify a handler or call an API."""


class _Keep(enum.Enum):
    KEEP = "keep"


KEEP: Final = _Keep.KEEP
"""As `Change.record`: the record is unchanged."""


@dataclass(frozen=True)
class ApiQuery:
    """A question that is answered on this machine, usually by an API.

    key    equal keys of one task are asked once
    call   returns the answer, of any type (read it with `Observation.data`). It is given what is known before: the
           answer to `needs` (as `seen.only`), the record, and whether a verification is due. An error
           that `plan` should handle is returned, not raised
    needs  a command for the host whose answer `call` needs
    """

    key: Hashable
    call: Callable[[Observation], Any] = field(compare=False, repr=False)
    needs: Command | None = None


Question = Command | ApiQuery


class Probe(dict[str, Question]):
    """Named questions of one resource. Equal questions of a host are asked once.

    A single question needs no name: `Probe.of(sh(…))`, read with `seen.text` and `seen.code`.
    `when_due` holds questions that are asked, in addition or instead, when a verification is due.
    """

    ONLY: ClassVar[str] = ""

    def __init__(
        self, questions: Mapping[str, Question] | None = None, *, when_due: Mapping[str, Question] | None = None
    ):
        super().__init__(questions or {})
        self.when_due = dict(when_due or {})

    @classmethod
    def of(cls, question: Question) -> Probe:
        """A probe of a single question."""
        return cls({cls.ONLY: question})

    def questions(self, due: bool) -> Mapping[str, Question]:
        """The questions to ask."""
        return {**self, **self.when_due} if due else self


class Known(NamedTuple):
    """What the engine knows about a resource besides the answers; see `Observation` for the meaning of each."""

    record: Json = None
    others: Mapping[str, Json] = {}
    records: Mapping[str, Json] = {}
    claimed: Set[str] = frozenset()
    due: bool = False
    fingerprint_key: Callable[[], str] = lambda: "00" * 32


class Observation(dict[str, Result]):
    """What is known about a resource: the answers to its probe, and what the engine adds.

    Results of commands are `seen["name"]`; answers to an `ApiQuery` are `seen.data("name")`.
    """

    def __init__(self, answers: Mapping[str, Any] | None = None, known: Known | None = None) -> None:
        super().__init__(answers or {})
        self._known = known or Known()

    def data(self, name: str = Probe.ONLY) -> Any:
        """The answer to an `ApiQuery`."""
        return self[name]

    @property
    def only(self) -> Result:
        """The answer to a probe of one question."""
        return self[Probe.ONLY]

    @property
    def text(self) -> str:
        """The standard output of the only command."""
        return self.only.text

    @property
    def code(self) -> int:
        """The exit code of the only command."""
        return self.only.code

    @property
    def record(self) -> Json:
        """What this owner recorded under the resource's `record_key`; None without a record."""
        return self._known.record

    @property
    def others(self) -> Mapping[str, Json]:
        """What other owners recorded under the same key, by owner."""
        return self._known.others

    @property
    def records(self) -> Mapping[str, Json]:
        """Everything that this owner recorded on the host, by record key."""
        return self._known.records

    @property
    def claimed(self) -> Set[str]:
        """Keys that resources of other owners claim in this run (`Resource.claims`): never remove those."""
        return self._known.claimed

    @property
    def due(self) -> bool:
        """Whether a verification is due: the user named the task, or something was changed earlier in this run.

        A change counts on this host, and in a play that the host has waited for.
        """
        return self._known.due

    @cached_property
    def fingerprint_key(self) -> str:
        """The host's random key for fingerprints of secrets, in hex: 32 bytes."""
        return self._known.fingerprint_key()


class Outcome(NamedTuple):
    """The result of an API action: the remaining command, and records that are known only afterwards.

    run      the command for the host
    record   replaces the change's `record`
    records  replaces the change's `records`
    after    is called when the command has ended, whether it succeeded or not
    """

    run: Command = NOTHING
    record: Json = KEEP
    records: Mapping[str, Json] = {}
    after: Callable[[], None] | None = None


@dataclass(frozen=True)
class ApiAction:
    """A change that begins with an API request. `make` sends it, and may return an `Outcome` for the host.

    describe  the request, for people: "POST /user/runners"
    """

    make: Callable[[], Outcome | None] = field(repr=False)
    describe: str = ""


@dataclass(frozen=True)
class Guard:
    """Rolls a change back unless a fresh login succeeds within `seconds`. `undo` reads no input.

    UNIT  the systemd timer on the host; while it exists, the change that it guards is not confirmed
    """

    UNIT: ClassVar[str] = "provision-guard"

    undo: Command
    seconds: int = 60


@dataclass(frozen=True)
class Change:
    """One change of a resource, with everything that the engine needs to apply it.

    summary       an imperative: "start docker"
    run           the command, or the API call that yields one
    diff          a unified diff, secrets masked
    notify        handlers that must run after this; they are pending on the host before the change begins
    replaces      handlers that need not run after this: starting a service makes its restart unnecessary
    record        what is recorded for the owner under the resource's `record_key`; None removes the record
    records       further records of the same owner, by key; None removes one
    record_from   computes the record from the command's output, if it is known only afterwards
    deadline      seconds
    verification  it makes no lasting change: it is run and reported, but not counted as a change
    guard         the change could lock us out: it is rolled back unless a fresh login succeeds
    final         it runs after all other changes of the task, planned from a new observation
    requires      the task that must run first; in check mode the change is predicted, otherwise it is refused
    remedy        the hint if the requirement is not met; "": run the required task
    id            distinguishes the changes of one resource; "": the command and the action are used
    """

    summary: str
    run: Command | ApiAction
    action: Action = "update"
    diff: str = ""
    notify: tuple[Handler, ...] = ()
    replaces: tuple[Handler, ...] = ()
    record: Json = KEEP
    records: Mapping[str, Json] = field(default_factory=dict)
    record_from: Callable[[str], Json] | None = field(default=None, compare=False, repr=False)
    deadline: float = 60.0
    verification: bool = False
    guard: Guard | None = None
    final: bool = False
    requires: str = ""
    remedy: str = ""
    id: str = ""

    @property
    def identity(self) -> str:
        """Equal for two changes of one resource that do the same thing, even if their summaries differ."""
        if self.id:
            return self.id
        what = self.run.describe if isinstance(self.run, ApiAction) else self.run.script
        return f"{self.action} {hashlib.sha256(what.encode()).hexdigest()[:16]}"


class Note(NamedTuple):
    """A message for the user that is not a change."""

    text: str


class Resource(ABC):
    """A part of the desired state. Subclasses are frozen dataclasses.

    Subclasses that record something on the host set `record_key`.
    """

    @property
    def record_key(self) -> str:
        """The key of its record in state.json; "" for a resource that records nothing."""
        return ""

    @property
    def handlers(self) -> tuple[Handler, ...]:
        """The handlers that its changes may notify; by default those in its field `notify`, if it has one."""
        return handlers_of(getattr(self, "notify", ()))

    @property
    def watches(self) -> Mapping[str, Handler]:
        """Files that other resources of the task may change, with the handler that must then run: a unit's program."""
        return {}

    @property
    def label(self) -> str:
        """Its name in plans and events: by default its class and its first field, `File /etc/docker/daemon.json`."""
        first = list(getattr(self, "__dataclass_fields__", ()))[:1]
        return " ".join([type(self).__name__, *(str(getattr(self, name)) for name in first)])

    @abstractmethod
    def probe(self) -> Probe:
        """The questions that it needs answered."""

    @abstractmethod
    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        """The necessary changes, and notes. Raises HostFailed (Refused, ProbeFailed) if nothing may be changed."""

    def refuse_early(self, seen: Observation) -> None:
        """Raises Refused for what no other shipped task can change, such as a release without packages.

        It is called before the first change of the run, unless a task of the user's own precedes it. `plan` refuses too.
        """
        del seen

    def claims(self) -> Mapping[str, Hashable]:
        """The parts of shared things that it sets, with their values: `{"/etc/docker/daemon.json log-driver": "local"}`.

        Two tasks of one host that claim a key with different values are refused before any host is contacted.
        """
        return {}

    def with_settings(self, settings: Settings) -> Resource:
        """The resource with those settings of its host that apply to every task, the user's own too: how to wait for apt."""
        del settings
        return self

    def merged(self, other: Any) -> Resource:
        """This resource and a further one of the same task, class and `record_key` as one. Raises UsageError."""
        raise UsageError(
            f"{other.label}: the task yields two resources that record the same thing",
            hint="yield one resource that sets everything",
        )

    def validate(self) -> None:
        """Makes checks that are too slow for every run. Raises UsageError.

        It is called before any host is contacted, if the user named the task.
        """
        return


@dataclass(frozen=True)
class BatchQuery(Command):
    """A command that can be combined with others of its class, since each process costs the host a millisecond or two.

    `script` asks it alone. The engine combines the questions of one class and splits the answer.
    """

    @classmethod
    @abstractmethod
    def join(cls, questions: Sequence[Any]) -> Command:
        """One command for all of them."""

    @classmethod
    @abstractmethod
    def split(cls, questions: Sequence[Any], result: Result) -> list[Result] | None:
        """The answer to each of them, in order. None if the answer cannot be split: then each is asked alone."""


def record_only(what: str, record: Json) -> Change:
    """Records something and changes nothing else: `record_only("the rules of this task", [...])`."""
    return Change(f"record {what}", NOTHING, "run", record=record, verification=True, id="record")


def without_program(what: str, program: str) -> Change:
    """A check that needs a program which a resource before it installs: the engine plans again after that.

    It fails if the program is still missing then. In check mode nothing else is known.
    """
    problem = f"{program} is not installed on the host: apt-get install {program}"
    return failed_check(what, problem, id=f"without {program}")


def failed_check(what: str, problem: str, *, id: str = "") -> Change:
    """A check that is known to fail: it prints the problem after all other changes."""
    fail = sh("printf '%%s\\n' %s >&2; exit 1", problem)
    return Change(what, fail, "run", verification=True, final=True, id=id)


def unverified(what: str, why: str, requires: str = "") -> Change:
    """A verification that fails after all other changes: the exit code then shows that the state is unknown.

    requires  the task that must run before GitLab can be asked; "" for none
    """
    if requires:
        return Change(what, NOTHING, "run", verification=True, requires=requires, id=what)

    def fail() -> None:
        raise ApiFailed(f"{what}: {why}", hint="rerun the command when GitLab answers; nothing was changed")

    return Change(what, ApiAction(fail), "run", verification=True, final=True, id=what)

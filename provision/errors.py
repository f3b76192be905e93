"""Every error that a user can meet, in one tree.

    ProvisionError
    ├── UsageError            exit 2   the command line: unknown name, no host matched
    │   └── InventoryError    exit 2   the inventory: file, line, key, what is expected
    ├── Unreachable           exit 4   no session on the host: refused, timed out, not known, not let in
    │   ├── HostKeyError               the host's key is unknown, pinned otherwise, or has changed
    │   ├── LoginRefused               the host answered and refused the user or key
    │   └── ConnectionLost             the session broke while work was under way
    └── HostFailed            exit 1   the host was reached and something there is wrong
        ├── BecomeError                sudo refused or did not answer
        ├── Locked                     another run holds the host
        ├── ProbeFailed                a state could not be read
        ├── Refused                    what is asked for would do harm; nothing was changed
        ├── NotReady                   something an earlier task leaves is missing
        ├── ChangeFailed               a change was tried and the host said no
        │   ├── DeadlineExceeded       it did not end in its time
        │   ├── ApiFailed                  GitLab's API refused, or was not reached
        │   └── ChangedMeanwhile       what it rests on was changed by somebody else since it was looked at
        └── NotConverged               applied, looked again, and something is still left to do

Each carries what happened (`text`), and what to do next (`hint`). Host, task and resource are added
by the engine, which knows them.
"""

from __future__ import annotations

from collections.abc import Iterable


class ProvisionError(Exception):
    """Base of all: `text` says what happened and where, `hint` what to do next."""

    def __init__(self, text: str, *, hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.text}\n  → {self.hint}" if self.hint else self.text


class UsageError(ProvisionError):
    """The command line cannot be carried out; nothing was contacted."""


class InventoryError(UsageError):
    """The inventory cannot be used; `text` names file, line and key."""


class Unreachable(ProvisionError):
    """No session could be had on the host."""


class HostKeyError(Unreachable):
    """The host's key is not the one that is known or pinned."""


class LoginRefused(Unreachable):
    """The host answered, and refused user, key or password."""


class ConnectionLost(Unreachable):
    """The session broke while work was under way."""


class HostFailed(ProvisionError):
    """The host was reached, and something on it is wrong."""


class BecomeError(HostFailed):
    """No root shell: sudo refused or did not answer."""


class Locked(HostFailed):
    """Another run holds the host."""


class ProbeFailed(HostFailed):
    """A state could not be read."""


class Refused(HostFailed):
    """What is asked for would do harm or cannot work; nothing was changed."""


class NotReady(HostFailed):
    """Something that an earlier task leaves is missing."""


class ChangeFailed(HostFailed):
    """A change was tried and failed."""


class DeadlineExceeded(ChangeFailed):
    """A step did not end in its time."""


class ApiFailed(ChangeFailed):
    """GitLab's API refused, with its HTTP `status`, or was not reached (status 0)."""

    def __init__(self, text: str, *, hint: str = "", status: int = 0) -> None:
        super().__init__(text, hint=hint)
        self.status = status


class ChangedMeanwhile(ChangeFailed):
    """What a change rests on was changed by somebody else since it was looked at."""


class NotConverged(HostFailed):
    """Everything was applied, and something is still left to do."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that is most like `word`, or None when none is near."""
    import difflib  # errors only

    words = {one.lower(): one for one in known}
    found = difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.6)
    return words[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?`, else the words there are, else nothing: to be put behind a message."""
    words = sorted(known)
    found = nearest(word, words)
    if found is not None:
        return f'; did you mean "{found}"?'
    return f"; there are: {', '.join(words)}" if 0 < len(words) <= 12 else ""

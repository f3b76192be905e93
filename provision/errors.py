"""Every error that a user can see, in one tree.

    ProvisionError
    ├── UsageError            exit 2   the command line: unknown name, no host matched; no host was contacted
    │   └── InventoryError    exit 2   the inventory: file, line, key, what is expected
    ├── Unreachable           exit 4   no session on the host: refused, timed out, unknown, access denied
    │   ├── HostKeyError               the host's key is unknown, pinned to another one, or has changed
    │   ├── LoginRefused               the host answered and refused the user, key or password
    │   └── ConnectionLost             the session broke during the run
    └── HostFailed            exit 1   the host was reached, and something on it is wrong
        ├── BecomeError                sudo refused or did not answer
        ├── Locked                     another run holds the host's lock
        ├── ProbeFailed                the state of something on the host could not be read
        ├── Refused                    the settings would do harm or cannot work; nothing was changed
        ├── NotReady                   something that an earlier task sets up is missing
        ├── ChangeFailed               a change was tried and failed
        │   ├── DeadlineExceeded       it did not end in its time
        │   ├── ApiFailed              GitLab's API refused, or could not be reached
        │   └── ChangedMeanwhile       another program changed the same thing after it was observed
        └── NotConverged               changes were applied, and some are still pending

Each error has a `text` (what failed, and where) and a `hint` (what to do next). The engine adds host, task and resource.
"""

from __future__ import annotations

from collections.abc import Iterable


class ProvisionError(Exception):
    """The base class: `text` is what failed and where, `hint` is what to do next."""

    def __init__(self, text: str, *, hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.text}\n  → {self.hint}" if self.hint else self.text


class UsageError(ProvisionError):
    """The command line is wrong; no host was contacted."""


class InventoryError(UsageError):
    """The inventory cannot be used; `text` names the file, line and key."""


class Unreachable(ProvisionError):
    """No session could be opened on the host."""


class HostKeyError(Unreachable):
    """The host's key is not the known or pinned one."""


class LoginRefused(Unreachable):
    """The host answered and refused the user, key or password."""


class ConnectionLost(Unreachable):
    """The session broke during the run."""


class HostFailed(ProvisionError):
    """The host was reached, and something on it is wrong."""


class BecomeError(HostFailed):
    """No root shell: sudo refused or did not answer."""


class Locked(HostFailed):
    """Another run holds the host's lock."""


class ProbeFailed(HostFailed):
    """The state of something on the host could not be read."""


class Refused(HostFailed):
    """The settings would do harm or cannot work; nothing was changed."""


class NotReady(HostFailed):
    """Something that an earlier task sets up is missing."""


class ChangeFailed(HostFailed):
    """A change was tried and failed."""


class DeadlineExceeded(ChangeFailed):
    """A step did not end in its time."""


class ApiFailed(ChangeFailed):
    """GitLab's API refused, with its HTTP `status`, or could not be reached (status 0)."""

    def __init__(self, text: str, *, hint: str = "", status: int = 0) -> None:
        super().__init__(text, hint=hint)
        self.status = status


class ChangedMeanwhile(ChangeFailed):
    """Another program changed the same thing after it was observed."""


class NotConverged(HostFailed):
    """Changes were applied, and some are still pending."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The word of `known` that is most similar to `word`; None when none is similar."""
    import difflib  # only for errors

    words = {one.lower(): one for one in known}
    found = difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.6)
    return words[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message: `; did you mean "x"?`, else the list of up to 12 known words, else ""."""
    words = sorted(known)
    found = nearest(word, words)
    if found is not None:
        return f'; did you mean "{found}"?'
    return f"; there are: {', '.join(words)}" if 0 < len(words) <= 12 else ""

"""Every error that a user can see, in one tree.

    ProvisionError
    ├── UsageError            exit 2   the command line: unknown name, no host matched; no host was contacted
    │   ├── InventoryError    exit 2   the inventory: file, line, key, what is expected
    │   └── PlaybookError     exit 2   a playbook file of the user's own: file, line, task, error
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
        ├── WorkerLost                 `--dask`: the worker that ran the host was lost, and no other worker finished it
        ├── NotConverged               changes were applied, and some are still pending
        └── Unexpected                 an exception that no code handles: a bug, or unexpected data from the host

Each error has a `text` (what failed, and where) and a `hint` (what to do next). The engine adds host, task and resource.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

MOST_SHOWN = 50  # mistakes in one message


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


class PlaybookError(UsageError):
    """A playbook file has a mistake; `text` names file, line, task and error, `details` is the traceback."""

    def __init__(self, text: str, *, hint: str = "", details: str = "") -> None:
        super().__init__(text, hint=hint)
        self.details = details


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
    """A change was tried and failed.

    changed_nothing  it is known that the host is as it was before
    not_ready        GitLab or its registry is starting: the same may succeed later
    """

    changed_nothing = False
    not_ready = False


class DeadlineExceeded(ChangeFailed):
    """A step did not end in its time."""


class ApiFailed(ChangeFailed):
    """GitLab's API refused, with its HTTP `status`, or could not be reached (status 0).

    requires  the task that makes the missing token; "" when the cause is another
    """

    def __init__(self, text: str, *, hint: str = "", status: int = 0, requires: str = "") -> None:
        super().__init__(text, hint=hint)
        self.status = status
        self.requires = requires
        # Workhorse and nginx answer 502 while Rails boots, a load balancer 503.
        self.not_ready = status in (502, 503)


class ChangedMeanwhile(ChangeFailed):
    """Another program changed the same thing after it was observed."""

    changed_nothing = True


class WorkerLost(HostFailed):
    """The Dask worker that ran the host was lost, and no other worker finished it."""


class NotConverged(HostFailed):
    """Changes were applied, and some are still pending."""


class Unexpected(HostFailed):
    """An exception that no code handles: a bug in provision or in an own task, or unexpected data from the host."""


def as_provision_error(error: BaseException) -> ProvisionError:
    """The error itself, or for an exception of another kind an Unexpected with its class, message and place."""
    if isinstance(error, ProvisionError):
        return error
    text = " ".join(str(error).split())
    named = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return Unexpected(
            f"this machine has no more file descriptors ({named})",
            hint="raise the limit (ulimit -n 4096), or use fewer --forks; then rerun the command",
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return Unexpected(f"a disk of this machine is full ({named})", hint="free some space, then rerun the command")
    place = _place(error)
    return Unexpected(
        f"{named} ({place})" if place else named,
        hint="the code at this place does not expect what the host sent, or has a bug: -v prints the whole traceback; "
        "please report it",
    )


def _place(error: BaseException) -> str:
    """The last line of our code, or of a user's, that the exception passed: `file.py, line 12`."""
    import os  # the three are needed for errors only
    import traceback
    from pathlib import Path

    package, library = str(Path(__file__).parent), str(Path(os.__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        one
        for one in frames
        if one.filename.startswith(package)
        or not (one.filename.startswith((library, "<")) or "-packages" in one.filename)
    ]
    if not frames:
        return ""
    last = (ours or frames)[-1]
    file = Path(last.filename)
    shown = file.relative_to(Path(package).parent) if last.filename.startswith(package) else file
    return f"{shown}, line {last.lineno}"


def together(errors: Iterable[UsageError]) -> UsageError:
    """All mistakes of a run as one error; equal ones once. The class is that of the first."""
    found = list({str(one): one for one in errors}.values())
    first = found[0]
    if len(found) == 1:
        return first
    details = "\n".join(one.details for one in found if isinstance(one, PlaybookError))
    lines = [f"{len(found)} mistakes:", *(str(one) for one in found[:MOST_SHOWN])]
    lines += [f"… and {len(found) - MOST_SHOWN} more"] if len(found) > MOST_SHOWN else []
    text = "\n".join(lines)
    return PlaybookError(text, details=details) if details else type(first)(text)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The word of `known` that is most similar to `word`; None when none is similar."""
    import difflib  # only for errors

    words = {one.lower(): one for one in known}
    found = difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.6)
    return words[found[0]] if found else None


def misspelt(word: str, known: Iterable[str]) -> str | None:
    """The word of `known` that `word` is a misspelling of: one wrong, missing, extra or swapped letter in four.

    Stricter than `nearest`, for what the user may run next: "run" is not a misspelling of "prune".
    """
    distances = {one: _distance(word.lower(), one.lower()) for one in known}
    best = min(distances, key=lambda one: distances[one], default=None)
    return best if best is not None and distances[best] <= max(1, min(len(word), len(best)) // 4) else None


def _distance(a: str, b: str) -> int:
    """The number of letters to insert, remove, replace, or swap with the next one, to get from one word to the other."""
    before, above = [0] * (len(b) + 1), list(range(len(b) + 1))
    for i, one in enumerate(a, 1):
        row = [i]
        for j, other in enumerate(b, 1):
            cost = min(above[j] + 1, row[-1] + 1, above[j - 1] + (one != other))
            if i > 1 and j > 1 and one == b[j - 2] and a[i - 2] == other:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, above = above, row
    return above[-1]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message: `; did you mean "x"?`, else the list of up to 12 known words, else ""."""
    words = sorted(known)
    found = nearest(word, words)
    if found is not None:
        return f'; did you mean "{found}"?'
    return f"; there are: {', '.join(words)}" if 0 < len(words) <= 12 else ""

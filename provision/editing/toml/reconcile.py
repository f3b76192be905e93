"""The whole edit of config.toml: the text is read, the edits are planned and applied, and the result is read back."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from provision.editing.document import Document, check_read_back
from provision.editing.toml.model import Data, Entry, Reconciled, RunnerId, WantedRunner, entries_in
from provision.editing.toml.plan import make_plan
from provision.errors import Refused

_BY_HAND: Final = "nothing was changed; write these tables in the usual form ([[runners]], [runners.docker])"
_PLACE = re.compile(r"^(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$", re.DOTALL)


def reconcile(
    text: str,
    *,
    top: Mapping[str, Any],
    runners: Sequence[WantedRunner],
    owned_top: Collection[str] = (),
    dropped: Sequence[RunnerId] = (),
    owned_keys: Mapping[str, Collection[str]] | None = None,
) -> Reconciled:
    """Return the file with `top` and `runners` set, and everything else unchanged.

    text        the text of the file; "" when there is none
    top         top-level keys and tables (`concurrent`, `session_server`), without `runners`
    owned_top   dotted top-level keys that we set earlier: those that `top` no longer has are removed
    dropped     entries that we wrote earlier and that are no longer wanted
    owned_keys  by runner name, dotted keys that we set earlier in its entry: those no longer wanted are removed

    An entry is identified by its token and server; otherwise by the fingerprint of a token that we wrote earlier, or by
    its number in GitLab, and its token is replaced. A second entry of the same runner is removed. Arrays are replaced
    as a whole.

    Raises Refused: the text is not valid TOML (line and column are named), two wanted runners are identical, a
    runner without a known token has no entry, or the result would not read back as planned.
    """
    content = text.encode()
    data = _load(content)
    plan = make_plan(data, top, runners, owned_top, dropped, owned_keys or {})
    if not plan.edits:
        return Reconciled(text, False)
    from provision.editing.toml.edit import edited

    try:
        new = edited(content, plan.edits)
    except (LookupError, TypeError, ValueError) as error:  # tomlkit cannot edit a statement
        raise Refused(f"config.toml cannot be edited safely: {type(error).__name__}", hint=_BY_HAND) from None
    planned = {key: value for key, value in plan.data.items() if key != "runners" or value != []}
    check_read_back("config.toml", new, _load, planned, _BY_HAND)
    return Reconciled(new.decode(), new != content, tuple(plan.actions))


def entries(text: str) -> list[Entry]:
    """Return the `[[runners]]` of a file, with tokens in clear. Raises Refused for what is not valid TOML."""
    return entries_in(_load(text.encode()))


def _load(content: bytes) -> Data:
    """The data of the file, by the standard library's parser."""
    text = content[Document(content).start :].decode()
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _PLACE.match(str(error))
        line = (found and found["line"]) or str(text.count("\n") + 1)
        column = (found and found["column"]) or str(len(text.rpartition("\n")[2]) + 1)
        what = found["what"] if found else str(error)
        raise Refused(
            f"config.toml is not valid TOML: line {line}, column {column}: {what}",
            hint="fix that line on the host; the running gitlab-runner keeps the configuration that it loaded before",
        ) from None
    return {key: value for key, value in data.items() if key != "runners" or value != []}

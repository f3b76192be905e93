"""The way in: text and wishes to text."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from provision.errors import Refused
from provision.resources.runner_toml.match import entries_in
from provision.resources.runner_toml.model import Entry, Reconciled, RunnerId, Table, WantedRunner
from provision.resources.runner_toml.plan import make_plan, same

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
    """The file with `top` and `runners` in it, and nothing else changed.

    text        the file as it is; "" when there is none
    top         top-level keys and tables (`concurrent`, `session_server`), without `runners`
    owned_top   dotted keys that we once set at the top: those that `top` no longer has go
    dropped     entries that we once wrote and that are no longer wanted
    owned_keys  by runner name, dotted keys that we once set in its entry: those no longer wanted go

    An entry is known by its token and server; or by the fingerprint of a token we wrote before, or by its number in
    GitLab: then its token is swapped. A second entry of the same runner goes. Arrays are replaced whole.

    Raises Refused: the text is no TOML (line and column are named), two wanted runners are one, a runner without a
    known token has no entry, or the result would not read back as planned.
    """
    data = _load(text)
    plan = make_plan(data, top, runners, owned_top, dropped, owned_keys or {})
    if not plan.edits:
        return Reconciled(text, False)
    from provision.resources.runner_toml.edit import edited

    try:
        new = edited(text, plan.edits)
    except (LookupError, TypeError, ValueError) as error:  # tomlkit lost its way in a statement
        raise _not_edited(f": {type(error).__name__}") from None
    _verify(new, plan.data)
    return Reconciled(new, new != text, tuple(plan.actions))


def entries(text: str) -> list[Entry]:
    """The `[[runners]]` that stand in a file, tokens in the clear. Raises Refused for what is no TOML."""
    return entries_in(_load(text))


def _load(text: str) -> Table:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _PLACE.match(str(error))
        line = (found and found["line"]) or str(text.count("\n") + 1)
        column = (found and found["column"]) or str(len(text.rpartition("\n")[2]) + 1)
        what = found["what"] if found else str(error)
        raise Refused(
            f"config.toml is not valid TOML: line {line}, column {column}: {what}",
            hint="mend that line on the host; the runner itself goes on with what it loaded before",
        ) from None


def _verify(text: str, planned: Table) -> None:
    """What was written is read by another parser, and must be exactly what was planned."""
    try:
        seen = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        seen, why = {}, f": {error}"
    else:
        why = ""
    if why or not same(_without_empty(seen), _without_empty(planned)):
        raise _not_edited(why)


def _not_edited(why: str) -> Refused:
    return Refused(
        f"config.toml could not be edited: the result would not read back as planned{why}",
        hint="nothing was changed; write the tables concerned in the usual form ([[runners]], [runners.docker])",
    )


def _without_empty(data: Table) -> Table:
    return {key: value for key, value in data.items() if not (key == "runners" and value == [])}

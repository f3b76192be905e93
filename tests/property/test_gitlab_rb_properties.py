"""Random gitlab.rb files: edited, and read by real Ruby before and after."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, event, example, given, reject, settings
from hypothesis import strategies as st

from provision.editing.ruby.assignments import effective
from provision.editing.ruby.edit import edit
from provision.editing.ruby.masking import diff
from provision.editing.ruby.values import MISSING, NotLiteral, statement
from provision.editing.ruby.values import render as render_value
from provision.errors import Refused
from provision.secret import Secret
from tests.support import gitlab_rb_documents as documents
from tests.support.omnibus_ruby import RUBY, RubyError, check_edit, leaves, typed

EXAMPLES = 2000 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 150
many = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
pytestmark = pytest.mark.skipif(RUBY is None, reason="needs ruby to read the results: apt-get install ruby")


def edited(omnibus: Any, before: bytes, wanted: dict[Any, Any], remove: Sequence[Any] = ()) -> bytes:
    """Return the edited text after Ruby has confirmed it."""
    after = edit(before, wanted, remove).content
    check_edit(omnibus, before, after, wanted, remove)
    return after


def edited_or_refused(omnibus: Any, before: bytes, wanted: dict[Any, Any]) -> tuple[bytes, str]:
    """Return the edited text and "", or the old text and the message of the refusal."""
    try:
        return edited(omnibus, before, wanted), ""
    except Refused as refusal:
        event("refused")
        return before, refusal.text


def evaluated(omnibus: Any, document: Any) -> tuple[bytes, dict[str, Any]]:
    """A document's text, and what Ruby makes of it. A document that Ruby does not accept is no example."""
    text = document.text()
    try:
        return text, omnibus.evaluate(text)
    except RubyError:
        reject()


@many
@given(document=documents.plain_documents, wanted=documents.settings_wanted)
def test_plain_files(omnibus: Any, document: Any, wanted: dict[Any, Any]) -> None:
    """Files of plain assignments are not refused; wanted settings are set, others stay, byte for byte."""
    before, _ = evaluated(omnibus, document)
    after, refusal = edited_or_refused(omnibus, before, wanted)
    if refusal:
        assert "no hash" in refusal
        return
    where = 0
    for piece in document.foreign(wanted):
        where = after.find(piece, where) + len(piece)
        assert where >= len(piece), piece


@many
@given(document=documents.wild_documents, wanted=documents.settings_wanted)
def test_wild_files(omnibus: Any, document: Any, wanted: dict[Any, Any]) -> None:
    """Files with conditions, chains, computed values and changes in place are edited correctly, or refused with the line."""
    before, _ = evaluated(omnibus, document)
    _, refusal = edited_or_refused(omnibus, before, wanted)
    assert not refusal or "line" in refusal


@many
@given(document=documents.plain_documents, wanted=documents.settings_wanted)
def test_set_and_taken_out(omnibus: Any, document: Any, wanted: dict[Any, Any]) -> None:
    """Setting something that the file lacks and removing it again restores the file."""
    before, tree = evaluated(omnibus, document)
    assume(before.endswith(b"\n") or not before)
    names = {path[0] for path in leaves(tree, without=[])} | set(tree)
    wanted = {path: value for path, value in wanted.items() if path[0] not in names}
    assume(wanted)
    assert edit(edit(before, wanted).content, {}, list(wanted)).content == before


@many
@given(document=documents.plain_documents, remove=documents.removals)
def test_removed(omnibus: Any, document: Any, remove: list[Any]) -> None:
    """Only the setting is removed; removing it again changes nothing."""
    before, _ = evaluated(omnibus, document)
    after = edited(omnibus, before, {}, remove)
    for path in remove:
        assert effective(after, path) is MISSING


@many
@given(value=documents.values)
def test_values(omnibus: Any, value: Any) -> None:
    """Ruby reads every value as it was written, and so does our reader."""
    for indent, inline, ascii_only in ((0, False, False), (4, False, True), (0, True, False)):
        source = render_value(value, indent=indent, inline=inline, ascii_only=ascii_only)
        text = (statement(("external_url",), source) + "\n" + statement(("nginx", "x"), source) + "\n").encode()
        tree = omnibus.evaluate(text)
        assert typed(tree["external_url"]) == typed(value)
        assert typed(tree["nginx"]["x"]) == typed(value)
        assert typed(effective(text, ("nginx", "x"))) == typed(value)


@many
@given(source=documents.sources)
@example(source="%W[#$0]")
@example(source="<<E\n\\n##{1}\nE")
def test_literals(omnibus: Any, source: str) -> None:
    """Our reader reads a literal as Ruby does, or reports it as unknown."""
    text = f"nginx['x'] = {source}\n".encode()
    try:
        tree = omnibus.evaluate(text)
        value = effective(text, ("nginx", "x"))
    except (RubyError, Refused):
        event("no Ruby")
        return
    if isinstance(value, NotLiteral) or "NotLiteral" in typed(value):
        event("unknown")
        return
    assert typed(value) == typed(tree["nginx"]["x"])


@many
@given(document=documents.wild_documents, key=st.sampled_from(["secretkey", "bucket"]), secret=documents.secrets)
def test_masked(document: Any, key: str, secret: str) -> None:
    """A secret is in the file, and neither in the diff nor in the representation of the edit."""
    before = document.text()
    assume(secret.encode() not in before)
    wanted = {("registry", "storage"): {"s3": {key: Secret(secret), "region": "nyc3"}}}
    try:
        done = edit(before, wanted)
    except Refused:
        event("refused")
        return
    printed = diff(before, done.content, [secret])
    assert secret not in printed
    assert render_value(secret)[1:-1] not in printed
    assert secret not in repr(done)
    assert "***" in printed

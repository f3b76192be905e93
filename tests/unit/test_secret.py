"""A secret does not print itself."""

from __future__ import annotations

import base64
import copy
import json
import logging
import pickle
import traceback
from urllib.parse import quote

import pytest

from provision.secret import MASK, Secret, mask, mask_secret_values, reveal, revealed, secret_texts

CANARY = "canary-0f2b/ä\"&'x"


@pytest.mark.parametrize(
    "shown",
    [
        str(Secret(CANARY)),
        repr(Secret(CANARY)),
        f"{Secret(CANARY)}",
        f"{Secret(CANARY)!r:>5}",
        f"{Secret(CANARY):>40}",
        "%s" % Secret(CANARY),  # noqa: UP031
        "{}".format(Secret(CANARY)),  # noqa: UP032
        str([Secret(CANARY)]),
        str({"a": Secret(CANARY)}),
        pickle.dumps(Secret(CANARY)).decode("latin-1"),
        str(copy.deepcopy(Secret(CANARY))),
    ],
)
def test_it_shows_stars(shown: str) -> None:
    """In every way in which a value becomes text."""
    assert "canary" not in shown
    assert MASK in shown


def test_logs_and_tracebacks() -> None:
    """As an argument of a log line, or of an exception."""
    record = logging.LogRecord("x", logging.INFO, "x", 1, "token %s", (Secret(CANARY),), None)
    assert record.getMessage() == "token ***"
    try:
        raise ValueError(Secret(CANARY))
    except ValueError:
        assert "canary" not in traceback.format_exc()


def test_it_is_no_json() -> None:
    """A secret cannot be serialized by accident."""
    with pytest.raises(TypeError):
        json.dumps({"a": Secret(CANARY)})


def test_revealing() -> None:
    """By name alone."""
    assert Secret(CANARY).reveal() == CANARY
    assert reveal(Secret(CANARY)) == CANARY
    assert reveal("plain") == "plain"


def test_equality() -> None:
    """By content, with secrets alone; hashable; empty is false."""
    assert Secret("a-secret") == Secret("a-secret") != Secret("another")
    assert Secret("a-secret") != "a-secret"
    assert len({Secret("a-secret"), Secret("a-secret")}) == 1
    assert not Secret("")
    assert Secret("x")
    with pytest.raises(AttributeError):
        Secret("x").text = "y"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "form",
    [CANARY, json.dumps(CANARY)[1:-1], quote(CANARY, safe=""), base64.b64encode(CANARY.encode()).decode()],
)
def test_the_forms_in_which_it_comes_back_are_masked(form: str) -> None:
    """As it is, in JSON, in a URL, in base64."""
    Secret(CANARY)
    assert mask(f"before {form} after") == "before *** after"


def test_the_lines_of_a_key_are_masked_one_by_one() -> None:
    """A diff shows them with a sign before each."""
    lines = ["-----BEGIN X-----", "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", "Ag==", "-----END X-----"]
    Secret("\n".join(lines) + "\n")
    assert mask("+MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n Ag==\n-----END X-----") == "+***\n ***\n-----END X-----"


def test_one_inside_another() -> None:
    """The longest first: nothing of it is left."""
    Secret("canary-inner")
    Secret("canary-inner-and-outer")
    assert mask("canary-inner-and-outer canary-inner") == "*** ***"


def test_short_ones_are_not_masked_everywhere() -> None:
    """Else innocent letters would vanish."""
    Secret("abc")
    Secret("")
    assert mask("abcdef") == "abcdef"


def test_masking_that_keeps_the_lines() -> None:
    """A secret of several lines is masked on each of them."""
    Secret("canary one\ncanary two")
    assert mask("a\ncanary one\ncanary two\nb", keep_lines=True) == "a\n***\n***\nb"
    assert mask("a\ncanary one\ncanary two\nb") == "a\n***\nb"


def test_secrets_in_nested_data() -> None:
    """They are found and revealed at any depth."""
    data = {"a": [Secret("one"), {"b": (Secret("two"), "plain")}], "c": 1}
    assert secret_texts(data) == {"one", "two"}
    assert revealed(data) == {"a": ["one", {"b": ["two", "plain"]}], "c": 1}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("export API_TOKEN=abc; make", "export API_TOKEN=*** make"),
        ("PASSWORD='a b' c", "PASSWORD='***' c"),
        ("password: my pass phrase\nname: x", "password: ***\nname: x"),
        (r'# token = "a\"b" # old', '# token = "***" # old'),
        (r'run "TOKEN=\"abc def\""', r'run "TOKEN=\"***\""'),
        ("{ 'credentials' => 'x', 'bucket' => 'b' }", "{ 'credentials' => '***', 'bucket' => 'b' }"),
        ("smtp_password 'open", "smtp_password '***"),
        ("token_file=x secret: true api_key: {", "token_file=x secret: true api_key: {"),
        ("# keys: api_keys = ['a', 'b'], x = ['c']", "# keys: api_keys = [***], x = ['c']"),
        ("the token is secret", "the token is secret"),
    ],
)
def test_values_of_secret_names_in_free_text(text: str, masked: str) -> None:
    """In shell, YAML, TOML and Ruby; the rest of the text stays."""
    assert mask_secret_values(text) == masked

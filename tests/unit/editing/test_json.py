"""daemon.json by examples: the file, what is wanted, the result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from provision.editing.json import diff, edit
from provision.errors import Refused
from provision.secret import Secret

NAME = "/etc/docker/daemon.json"
ROWS: dict[str, tuple[str, dict[str, Any], Sequence[str], str]] = {
    "new file": ("", {"debug": True}, (), '{\n  "debug": true\n}\n'),
    "empty object": ("{}", {"debug": True}, (), '{\n  "debug": true\n}\n'),
    "value": ('{\n    "a": 1,\n    "b" :  2\n}\n', {"b": 3}, (), '{\n    "a": 1,\n    "b" :  3\n}\n'),
    "added": ('{\n    "a": 1\n}', {"b": [1]}, (), '{\n    "a": 1,\n    "b": [\n        1\n    ]\n}'),
    "added to one line": ('{"a": 1}\n', {"b": {"c": 2}}, (), '{"a": 1, "b": {"c": 2}}\n'),
    "nested": (
        '{\n\t"o": {"x": "1"},\n\t"z": 1\n}\n',
        {"o": {"x": "2"}},
        (),
        '{\n\t"o": {\n\t\t"x": "2"\n\t},\n\t"z": 1\n}\n',
    ),
    "first removed": ('{\n  "a": 1,\n  "b": 2\n}\n', {}, ["a"], '{\n  "b": 2\n}\n'),
    "last removed": ('{\n  "a": 1,\n  "b": 2\n}\n', {}, ["b"], '{\n  "a": 1\n}\n'),
    "middle and last removed": ('{ "a": 1, "b": 2, "c": 3 }', {}, ["b", "c"], '{ "a": 1 }'),
    "all removed": ('{"a": 1}', {}, ["a"], "{}\n"),
    "removed and added": ('{\n  "a": 1,\n  "b": 2\n}\n', {"c": 3}, ["b"], '{\n  "a": 1,\n  "c": 3\n}\n'),
    "wanted is not removed": ('{"a": 1}', {"a": 2}, ["a"], '{"a": 2}'),
    "CRLF": ('{\r\n  "a": 1\r\n}\r\n', {"b": {"c": 1}}, (), '{\r\n  "a": 1,\r\n  "b": {\r\n    "c": 1\r\n  }\r\n}\r\n'),
    "byte order mark": ('\ufeff{"a": 1}', {"b": 2}, (), '\ufeff{"a": 1, "b": 2}'),
    "letters": ('{"ü": "é", "a": 1}', {"a": "日本"}, (), '{"ü": "é", "a": "日本"}'),
    "a key that stands twice": ('{"a": 1, "b": 0, "a": 2}', {"a": 3}, (), '{"b": 0, "a": 3}'),
    "a key that stands twice, removed": ('{"a": 1, "b": 0, "a": 2}', {}, ["a"], '{"b": 0}'),
    "a secret": ('{"a": 1}', {"o": {"token": Secret("x-token")}}, (), '{"a": 1, "o": {"token": "x-token"}}'),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_row(name: str) -> None:
    """The file becomes the expected one; the same edit again changes nothing."""
    before, wanted, remove, after = ROWS[name]
    done = edit(before.encode(), wanted, remove, name=NAME)
    assert done.content.decode() == after
    assert done.changed
    again = edit(done.content, wanted, remove, name=NAME)
    assert again.content is done.content
    assert not again.changed


@pytest.mark.parametrize(
    "content",
    [
        '{"log-opts": {"max-size":"10m"}, "debug": true, "log-opts": {"max-file":"3"}}',
        '{"builder": {"gc": {"enabled": true}, "gc": {"defaultKeepStorage": "1GB"}}, "log-opts": {}}',
        '{"log-opts": {"max-size": "10m"}, "log-opts": null}',
    ],
)
@pytest.mark.parametrize("wanted", [{"debug": False}, {"log-opts": {"max-size": "1m"}}, {"debug": True}])
def test_a_key_that_stands_twice_with_an_object_is_refused(content: str, wanted: dict[str, Any]) -> None:
    """dockerd combines the two objects: with one of them replaced or left out, settings would be lost without a message."""
    with pytest.raises(Refused) as caught:
        edit(content.encode(), wanted, name=NAME)
    key = "gc" if "gc" in content else "log-opts"
    assert caught.value.text == f'{NAME} has the key "{key}" twice, with an object: dockerd combines both'
    assert caught.value.hint == "join the two by hand first; it is not overwritten"


@pytest.mark.parametrize("content", ["", "\n", "{}", '{"a": 1}', '{ "a":1,\n\n"b" : true }'])
def test_nothing_to_change(content: str) -> None:
    """The very bytes come back."""
    given_bytes = content.encode()
    wanted = {"a": 1} if "a" in content else {}
    assert edit(given_bytes, wanted, ["gone"], name=NAME).content is given_bytes


def test_what_changed() -> None:
    """The keys whose value differs: added, replaced and removed ones."""
    done = edit(b'{"a": 1, "b": 2, "c": 3}', {"a": 1, "b": 3, "d": 4}, ["c"], name=NAME)
    assert done.changed == {"b", "c", "d"}


def test_a_secret_is_not_in_what_is_printed() -> None:
    """Neither in the representation of the result nor in the diff, nor a password in a URL."""
    before = b'{"log-opts": {"splunk-token": "canary-1"}, "proxies": {"http-proxy": "http://u:canary-2@proxy"}}'
    done = edit(before, {"x": {"api-key": [Secret("canary-3")], "env": "TOKEN=canary-4"}}, name=NAME)
    assert b"canary-3" in done.content
    assert "canary" not in repr(done)
    printed = diff(before, done.content, NAME)
    assert "canary" not in printed
    assert '"splunk-token": "***"' in printed


@pytest.mark.parametrize(
    "content", ['{"token": "canary', '{"token": ["a", "canary"', '{"token": {"x": 1\n"y": "canary"}']
)
def test_broken_json_is_masked_too(content: str) -> None:
    """A diff of a file that is not valid must not print secrets either."""
    assert "canary" not in diff(content.encode(), b"{}\n", NAME)


@pytest.mark.parametrize("content", ["{", "[1]", "1", '{"a": 1}}', '{"a": 01}'])
def test_not_an_object(content: str) -> None:
    """It is refused and not overwritten."""
    with pytest.raises(Refused) as caught:
        edit(content.encode(), {"a": 1}, name=NAME)
    assert NAME in caught.value.text
    assert "not overwritten" in caught.value.hint


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.text(max_size=3), json_values, max_size=4)


@settings(max_examples=150, deadline=None)
@given(
    objects, objects, st.lists(st.text(max_size=3)), st.sampled_from([None, 1, 2, "\t"]), st.booleans(), st.booleans()
)
@example({"a": 1, "b": 2}, {"b": 3}, ["a"], None, True, True)
def test_any_object(
    before: dict[str, Any],
    wanted: dict[str, Any],
    remove: list[str],
    indent: int | str | None,
    crlf: bool,
    ascii_only: bool,
) -> None:
    """The data is exact, the order of keys stays, and the same edit again changes nothing."""
    text = json.dumps(before, indent=indent, ensure_ascii=ascii_only)
    content = (text.replace("\n", "\r\n") if crlf else text).encode("utf-8", "replace")
    before = json.loads(content)
    wanted = json.loads(json.dumps(wanted).encode())
    done = edit(content, wanted, [*remove, *list(before)[:1]], name=NAME)
    gone = {*remove, *list(before)[:1]} - set(wanted)
    expected = {key: value for key, value in before.items() if key not in gone} | wanted
    assert json.dumps(json.loads(done.content)) == json.dumps(expected)
    assert edit(done.content, wanted, remove, name=NAME).content == done.content
    assert bool(diff(content, done.content, NAME)) == (content != done.content)


URLS = [
    ("http-proxy", "http://user:canary@proxy:3128"),
    ("http-proxy", "http://user:can/ary@canary@proxy:3128"),
    ("http-proxy", 'http://user:can"canary@proxy:3128'),
    ("http-proxy", "user:canary@proxy:3128"),
    ("https-proxy", "http://canary@proxy:3128"),
    ("registry-mirrors", "https://user:canary\\@mirror.example.com"),
]


@pytest.mark.parametrize("slash", ["/", "\\/"])
@pytest.mark.parametrize(("key", "url"), URLS)
def test_passwords_in_urls_are_masked_in_diffs(key: str, url: str, slash: str) -> None:
    """As people write them: with `/`, `@` and quotes in the password, without a scheme, with escaped slashes."""
    content = json.dumps({"proxies": {key: url}, "hosts": ["unix:///run/x"]}, indent=1).replace("/", slash).encode()
    shown = diff(b"{}", content, "/etc/docker/daemon.json")
    assert "canary" not in shown
    assert key in shown
    assert "/run" in shown

"""The parts of editing gitlab.rb: reading a setting, writing values, removing a setting."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest

from provision.editing.ruby.assignments import effective
from provision.editing.ruby.edit import edit
from provision.editing.ruby.values import MISSING, NotLiteral, nginx_path, render, statement
from provision.errors import Refused
from provision.secret import Secret

CERTIFICATE = ("registry", "nginx", "ssl_certificate")

READ: dict[str, tuple[str, Any]] = {
    "plain": ("registry['nginx']['ssl_certificate'] = '/a.crt'", "/a.crt"),
    "in a hash": ("registry['nginx'] = { ssl_certificate: \"/a.crt\" }", "/a.crt"),
    "last wins": ("registry['nginx']['ssl_certificate'] = '/a'\nregistry['nginx'] = { 'ssl_certificate' => '/b' }", "/b"),
    "overruled by a hash without it": ("registry['nginx']['ssl_certificate'] = '/a'\nregistry['nginx'] = {}", MISSING),
    "missing": ("external_url 'x'\n# registry['nginx']['ssl_certificate'] = '/a'", MISSING),
    "merged": ("registry['nginx'].merge!('x' => 1)\nregistry['nginx'].merge!({ 'ssl_certificate' => '/a' })", "/a"),
    "merged without braces": ("registry['nginx'].update('ssl_certificate' => '/a', x: 1)", "/a"),
    "another condition": ("nginx['x'] = 1 if true\nregistry['nginx']['ssl_certificate'] = '/a'", "/a"),
    "agreeing condition": ("registry['nginx']['ssl_certificate'] = '/a'\nregistry[:nginx][:ssl_certificate] = '/a' if x", "/a"),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_effective(case: str) -> None:
    """The value after Ruby has run the file."""
    text, value = READ[case]
    assert effective(text.encode(), CERTIFICATE) == value


UNKNOWN = {
    "computed": ("nginx['x'] = 1\nregistry['nginx']['ssl_certificate'] = File.read('x')", 2),
    "interpolated": ("registry['nginx'] = {\n  ssl_certificate: \"/#{a}.crt\" }", 2),
    "interpolated words": ("registry['nginx'] = { ssl_certificate: %W[#$0 #@a] }", 1),
    "conditional": ("registry['nginx']['ssl_certificate'] = '/a'\nregistry['nginx']['ssl_certificate'] = '/b' if x", 2),
    "changed in place": ("registry['nginx']['ssl_certificate'] = '/a'\nregistry['nginx'].clear", 2),
    "a local variable": ("registry = {}\nregistry['nginx']['ssl_certificate'] = '/a'", 1),
    "or-equals": ("registry['nginx']['ssl_certificate'] ||= '/a'", 1),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown(case: str) -> None:
    """A value that only Ruby can compute is reported as such, with its line."""
    text, line = UNKNOWN[case]
    value = effective(text.encode(), CERTIFICATE)
    assert isinstance(value, NotLiteral)
    assert value.line == line


def test_whole_hash() -> None:
    """A hash is read with what was set inside it later."""
    text = b"registry['storage'] = { 's3' => { bucket: 'a' } }\nregistry['storage']['s3']['region'] = 'x'\n"
    assert effective(text, ("registry", "storage")) == {"s3": {"bucket": "a", "region": "x"}}


@pytest.mark.parametrize(
    ("version", "path"),
    [
        ("19.3.0", ("registry", "nginx")),
        ("19.2.0-ce.0", ("registry", "nginx")),
        ("v20.0.1+ee.0", ("registry", "nginx")),
        ("19.1.9", ("registry_nginx",)),
        ("12.10.0+ce.0", ("registry_nginx",)),
    ],
)
def test_nginx_path(version: str, path: tuple[str, ...]) -> None:
    """The new path is in use from 19.2 on."""
    assert nginx_path(version) == path


def test_nginx_path_of_no_version() -> None:
    """Anything else is refused."""
    with pytest.raises(Refused, match="is not a GitLab version"):
        nginx_path("latest")


@pytest.mark.parametrize(
    ("value", "source"),
    [
        ("plain", "'plain'"),
        ("it's", '"it\'s"'),
        ("a\\b", '"a\\\\b"'),
        ("#{x} #$y #@z #", "'#{x} #$y #@z #'"),
        ("'#{x} #$y #@z #", '"\'\\#{x} \\#$y \\#@z #"'),
        ("a\nb\x00\u2028", '"a\\nb\\u{0}\\u{2028}"'),
        ("é日🦊", "'é日🦊'"),
        (Secret("s"), "'s'"),
        (None, "nil"),
        (True, "true"),
        (-1, "-1"),
        (1e22, "1e+22"),
        ([], "[]"),
        ({}, "{}"),
        (["a", 1], "['a', 1]"),
        ({"a": {"b": [1]}}, "{\n  'a' => {\n    'b' => [1]\n  }\n}"),
        ([{"a": 1}], "[\n  {\n    'a' => 1\n  }\n]"),
    ],
)
def test_render(value: Any, source: str) -> None:
    """Values as a person writes them."""
    assert render(value) == source


def test_statement() -> None:
    """One part is a call, more are an assignment; keys are quoted like values."""
    assert statement(("external_url",), "'x'") == "external_url 'x'"
    assert statement(("a", "it's", "b"), "1") == "a[\"it's\"]['b'] = 1"


REMOVED = {
    "its line": ("nginx['a'] = 1\nregistry['x'] = 2 # why\nnginx['b'] = 1\n", "nginx['a'] = 1\nnginx['b'] = 1\n"),
    "every time it is set": ("registry['x'] = 1\nregistry['x'] = 2\n", ""),
    "what lies under it": ("registry['x']['y'] = 1\nregistry['z'] = 2\n", "registry['z'] = 2\n"),
    "not a local variable": ("registry = nil\n", "registry = nil\n"),
    "a block of lines": ("registry['x'] = {\n  'a' => 1\n}\n\n", "\n"),
    "its heredoc": ("registry['x'] = <<E\nfoo\nE\nnginx['a'] = 1\n", "nginx['a'] = 1\n"),
    "first of a line": ("registry['x'] = 1; nginx['a'] = 1\n", "nginx['a'] = 1\n"),
    "last of a line": ("nginx['a'] = 1; registry['x'] = 1 # why\n", "nginx['a'] = 1 # why\n"),
    "not a condition": ("registry['x'] = 1 if true\n", "registry['x'] = 1 if true\n"),
    "not a chain": ("registry['x'] = nginx['a'] = 1\n", "registry['x'] = nginx['a'] = 1\n"),
    "nothing": ("nginx['a'] = 1\n", "nginx['a'] = 1\n"),
}


@pytest.mark.parametrize("case", REMOVED)
def test_removed(case: str) -> None:
    """The setting is removed and nothing else; removing it again changes nothing."""
    before, after = REMOVED[case]
    done = edit(before.encode(), {}, [("registry", "x")])
    assert done.content.decode() == after
    assert edit(done.content, {}, [("registry", "x")]).changes == []
    assert [change.action for change in done.changes] == (["delete"] if before != after else [])


def test_removed_key_of_a_hash() -> None:
    """One key is removed from a hash; the lines and comments of others stay."""
    before = b"registry['storage'] = {\n  's3' => { 'a' => 1 },\n  # ours\n  'redirect' => { 'disable' => true }\n}\n"
    done = edit(before, {}, [("registry", "storage", "redirect")])
    assert done.content == b"registry['storage'] = {\n  's3' => { 'a' => 1 }\n  # ours\n}\n"
    assert done.changes[0].action == "delete"


def test_removed_twice_over() -> None:
    """Several keys of one hash, and a setting with a part of itself."""
    before = b"registry['x'] = { 'a' => 1, 'b' => 2, 'c' => 3 }\n"
    done = edit(before, {}, [("registry", "x", "a"), ("registry", "x", "b")])
    assert effective(done.content, ("registry", "x")) == {"c": 3}
    assert edit(before, {}, [("registry", "x"), ("registry", "x", "a")]).content == b""


def test_what_stays_is_noted() -> None:
    """What cannot be removed safely is noted with its line."""
    done = edit(b"registry['x'] = 1\nregistry['x'] = 2 unless true\n", {}, [("registry", "x")])
    assert done.content == b"registry['x'] = 2 unless true\n"
    assert done.notes == ["line 2 also sets registry['x'], in `unless`: unchanged"]
    chain = edit(b"registry['x'] = nginx['a'] = []\nregistry['x'] << 1\n", {}, [("registry", "x")])
    assert chain.notes == [
        "line 1 also sets registry['x'], in a statement that does more: unchanged",
        "line 2 also sets registry['x'], in a change in place: unchanged",
    ]


def test_wanted_under_removed() -> None:
    """A wanted key stays when the hash around it is removed."""
    before = b"registry['nginx']['a'] = 1\nregistry['nginx']['b'] = 2\n"
    done = edit(before, {("registry", "nginx", "a"): 1}, [("registry", "nginx")])
    assert done.content == b"registry['nginx']['a'] = 1\n"


def test_tree_sitter_is_imported_late() -> None:
    """Importing the editor does not import the parser."""
    code = "import provision.editing.ruby, sys; sys.exit('tree_sitter' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ten_thousand_lines() -> None:
    """A huge file is edited in seconds."""
    text = b"".join(b"gitlab_rails['k%d'] = { 'a' => 'value' } # note\n# comment\n" % number for number in range(5000))
    began = time.process_time()
    done = edit(text, {("gitlab_rails", "k4000"): 1, ("gitlab_rails", "new"): 2, ("nginx", "x"): 3})
    assert [change.action for change in done.changes] == ["update", "create", "create"]
    assert time.process_time() - began < 10

"""The line of a key, in every notation that TOML has."""

from __future__ import annotations

from provision.inventory.tree import lines_of

TEXT = '''\
# a comment = [
top = 1
[table]                      # [not.this]
"quoted.key" = "a # b"
dotted.'in side' = 'x = 1'
text = """
[no]
no = 1 \\""" ""\\"
"""
raw = \'\'\'
no = 2\'\'\'
inline = { a = 1, b = { c = [1, 2] } }
array = [
  1,          # one
  { d = 2 },
  [3,
   4],
]
date = 1979-05-27T07:32:00Z
[[many]]
name = "first"
[many.sub]
x = 1
[[many.deep]]
y = 1
[[many]]
name = "second"
[[many.deep]]
y = 2
[[many.deep]]
y = 3
["a.b".c]
last = true'''

LINES = {
    ("top",): 2,
    ("table",): 3,
    ("table", "quoted.key"): 4,
    ("table", "dotted"): 5,
    ("table", "dotted", "in side"): 5,
    ("table", "text"): 6,
    ("table", "raw"): 10,
    ("table", "inline"): 12,
    ("table", "inline", "a"): 12,
    ("table", "inline", "b", "c", 1): 12,
    ("table", "array"): 13,
    ("table", "array", 0): 14,
    ("table", "array", 1, "d"): 15,
    ("table", "array", 2): 16,
    ("table", "array", 2, 1): 17,
    ("table", "date"): 19,
    ("many", 0): 20,
    ("many", 0, "name"): 21,
    ("many", 0, "sub", "x"): 23,
    ("many", 0, "deep", 0, "y"): 25,
    ("many", 1, "name"): 27,
    ("many", 1, "deep", 0, "y"): 29,
    ("many", 1, "deep", 1, "y"): 31,
    ("a.b", "c", "last"): 33,
}


def test_lines() -> None:
    """Every key path has its line, and strings and comments have no keys."""
    found = lines_of(TEXT)
    assert {path: found.get(path) for path in LINES} == LINES
    assert not any("no" in path for path in found)

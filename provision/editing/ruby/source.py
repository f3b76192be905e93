"""gitlab.rb as a syntax tree, and setting paths in Ruby notation. The only module that imports tree-sitter-ruby.

tree-sitter is imported only when a file is parsed.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, TypeAlias

from provision.editing.document import Document
from provision.editing.ruby.values import render_string
from provision.errors import Refused

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Query

_MAGIC = re.compile(rb"#.*?coding[:=][ \t]*([\w.-]+)")
_NO_STATEMENT = {"comment", "heredoc_body", "empty_statement", "uninterpreted"}


@dataclass(frozen=True, eq=False)
class RubyDocument(Document):
    """A gitlab.rb: its bytes and its syntax tree. `children` are the top-level nodes in order."""

    root: Node = field(repr=False)
    children: list[Node] = field(repr=False)

    @cached_property
    def statements(self) -> list[Node]:
        """The top-level nodes that Ruby runs."""
        return [node for node in self.children if node.is_named and node.type not in _NO_STATEMENT]

    @cached_property
    def starts(self) -> list[int]:
        """The offset at which each of `children` begins."""
        return [node.start_byte for node in self.children]

    @cached_property
    def end(self) -> int:
        """The offset at which a last line may be added: the end of the file, or the line of `__END__`."""
        last = self.children[-1] if self.children else None
        if last is not None and last.type == "uninterpreted":
            return self.line_start(last.start_byte - 1)
        return len(self.content)

    @cached_property
    def utf8(self) -> bool:
        """Whether Ruby reads letters outside ASCII as UTF-8 in this file."""
        head = b"\n".join(self.content[self.start :].split(b"\n", 2)[:2])
        magic = _MAGIC.search(head)
        if magic and magic[1].lower() not in (b"utf-8", b"utf8"):
            return False
        try:
            self.content.decode()
        except UnicodeDecodeError:
            return False
        return True

    @cached_property
    def heredocs(self) -> dict[int, Node]:
        """The body of each heredoc, by the offset at which its `<<MARK` begins."""
        beginnings = self.captured("(heredoc_beginning) @beginning")
        bodies = self.captured("(heredoc_body) @body")
        return {one.start_byte: other for one, other in zip(beginnings, bodies, strict=False)}

    def captured(self, pattern: str) -> list[Node]:
        """Return all nodes that a tree-sitter query captures, in order."""
        from tree_sitter import QueryCursor

        found = QueryCursor(_query(pattern)).captures(self.root)
        return sorted((node for nodes in found.values() for node in nodes), key=lambda node: node.start_byte)

    @cached_property
    def error_line(self) -> int | None:
        """The first line, from 1, that is not valid Ruby; None when all is valid."""
        if self.root.has_error:
            return self.line(_first_error(self.root))
        if b"<<" in self.content:
            for body in self.heredocs.values():
                end = body.children[-1] if body.children else body
                if end.start_byte == end.end_byte:  # the closing mark is missing
                    return self.line(body.start_byte)
        return None

    def next_line(self, offset: int) -> int:
        """Return the first start of a line after `offset` where a statement may be inserted.

        It is not inside another statement, a heredoc or a block comment.
        """
        while True:
            end = self.line_end(offset)
            if end >= self.end:
                return self.end
            index = bisect_right(self.starts, end - 1) - 1
            if index < 0 or self.children[index].end_byte <= end:
                return end
            offset = self.children[index].end_byte - 1

    def source(self, node: Node) -> bytes:
        """Return the bytes of a node."""
        return self.content[node.start_byte : node.end_byte]


@lru_cache(maxsize=8)
def parse(content: bytes) -> RubyDocument:
    """Parse any bytes, also Ruby that is not valid (see `RubyDocument.error_line`). The last results are cached."""
    return parse_uncached(content)


def parse_uncached(content: bytes) -> RubyDocument:
    """Parse a snippet that is not needed again."""
    from tree_sitter import Parser

    # The grammar recognises a heredoc's closing mark by the newline after it.
    whole = content if content.endswith(b"\n") else content + b"\n"
    root = Parser(_language()).parse(whole).root_node
    return RubyDocument(content, root, root.children)


def parse_valid(content: bytes) -> RubyDocument:
    """Parse Ruby that is to be edited. Raises Refused naming the first line that is not valid."""
    document = parse(content)
    if document.error_line is not None:
        raise Refused(
            f"gitlab.rb, line {document.error_line}: this is not Ruby that can be read safely",
            hint="check it with /opt/gitlab/embedded/bin/ruby -c /etc/gitlab/gitlab.rb and fix that line",
        )
    return document


def _first_error(node: Node) -> int:
    if node.is_error or node.is_missing:
        return node.start_byte
    for child in node.children:
        if child.has_error or child.is_missing:
            return _first_error(child)
    return node.start_byte


@lru_cache(maxsize=8)
def _query(pattern: str) -> Query:
    from tree_sitter import Query

    return Query(_language(), pattern)


@lru_cache(maxsize=1)
def _language() -> Language:
    import tree_sitter_ruby
    from tree_sitter import Language

    return Language(tree_sitter_ruby.language())


Path: TypeAlias = tuple[str, ...]
"""A setting: ("external_url",) is `external_url`, ("nginx", "enable") is `nginx['enable']`."""

_ROOT = re.compile(r"[a-z_][A-Za-z0-9_]*\Z")


def covers(outer: Path, inner: Path) -> bool:
    """Return whether `outer` is `inner` or a hash that holds it."""
    return inner[: len(outer)] == outer


def related(one: Path, other: Path) -> bool:
    """Return whether setting one of the paths affects the other."""
    return covers(one, other) or covers(other, one)


def setting_name(path: Path) -> str:
    """Return the path in Ruby notation: `registry['nginx']['enable']`. Raises Refused if it cannot be a setting."""
    if not path or not _ROOT.match(path[0]):
        raise Refused(
            f"{'.'.join(path) or '(nothing)'} is not the name of a gitlab.rb setting",
            hint="the first part must be a Ruby method's name, like gitlab_rails",
        )
    return path[0] + "".join(f"[{render_string(key)}]" for key in path[1:])


def statement(path: Path, value: str) -> str:
    """Return the statement that sets `path` to the Ruby source `value`: a call for one part, else an assignment."""
    if len(path) > 1:
        return f"{setting_name(path)} = {value}"
    # Without parentheses Ruby takes a brace for a block and may take a minus for a subtraction.
    return f"{setting_name(path)}({value})" if value[:1] in ("{", "-") else f"{setting_name(path)} {value}"


def nginx_path(version: str) -> Path:
    """Return the path of the registry's NGINX settings in GitLab `version` ("19.3.0", "19.3.0-ce.0", "v19.3.0+ce.0").

    From 19.2 on it is `registry['nginx']`. Older versions ignore it silently and read `registry_nginx`.
    Raises Refused when the text does not begin with a version.
    """
    found = re.match(r"v?(\d+)\.(\d+)", version.strip())
    if not found:
        raise Refused(f"{version!r} is not a GitLab version", hint="expected something like 19.3.0 or 19.3.0-ce.0")
    return ("registry", "nginx") if (int(found[1]), int(found[2])) >= (19, 2) else ("registry_nginx",)

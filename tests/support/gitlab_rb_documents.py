"""Strategies for gitlab.rb files as people write them, for values, and for wanted settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

Path = tuple[str, ...]

PATHS: list[Path] = [
    ("external_url",),
    ("registry_external_url",),
    ("roles",),
    ("gitlab_rails", "time_zone"),
    ("gitlab_rails", "it's \\ a #{key}"),
    ("registry", "storage"),
    ("registry", "storage", "s3"),
    ("registry", "storage", "s3", "bucket"),
    ("registry", "storage", "cache"),
    ("registry", "nginx", "ssl_certificate"),
    ("registry_nginx", "ssl_certificate"),
    ("nginx", "listen_port"),
]

letters = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
nasty = st.sampled_from(
    [
        "",
        "'",
        '"',
        "\\",
        "#{1}",
        "#$0",
        "#@x",
        "a\nb",
        "\r\n",
        "\t",
        "\x00",
        "\x1b",
        "it's",
        "é",
        "日本",
        "🦊",
        "\u2028",
        "\\n",
        "%q(",
        "#",
    ]
)
texts = letters | nasty | st.lists(nasty, max_size=4).map("".join)
scalars = (
    texts
    | st.integers(-(10**20), 10**20)
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False, allow_infinity=False)
)
keys = st.sampled_from(["s3", "bucket", "region", "cache", "x"]) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=8
)
tables = st.dictionaries(
    st.sampled_from(["s3", "cache", "redirect"]), st.dictionaries(keys, scalars, max_size=3) | scalars, max_size=3
)
secrets = st.text("abcDEF019'\"\\#{}\n/+", min_size=8, max_size=24).filter(
    lambda text: len(text.strip()) >= 8 and len(set(text)) > 3
)


def value_for(path: Path) -> st.SearchStrategy[Any]:
    """Values; hashes mostly for settings that usually hold hashes."""
    if path == ("registry", "storage"):
        return tables | values
    if path in (("registry", "storage", "s3"), ("registry", "storage", "cache")):
        return st.dictionaries(keys, scalars, max_size=3) | scalars
    return scalars | values


def _apart(paths: list[Path]) -> list[Path]:
    kept: list[Path] = []
    for path in paths:
        if not any(path[: len(other)] == other or other[: len(path)] == path for other in kept):
            kept.append(path)
    return kept


removals = st.lists(st.sampled_from(PATHS), min_size=1, max_size=3).map(_apart)
settings_wanted = removals.flatmap(lambda paths: st.fixed_dictionaries({path: value_for(path) for path in paths}))


@st.composite
def quoted(draw: Any, text: str) -> str:
    """A string literal for `text` in one of Ruby's notations."""
    styles = ["double", "escapes"]
    if "\\" not in text and "'" not in text and "\r" not in text:
        styles += ["single", "single"]
    if not set(text) & set("()\\\r"):
        styles.append("percent")
    if not set(text) & set('\\"#\r'):
        styles.append("bare double")
    style = draw(st.sampled_from(styles))
    if style == "single":
        return f"'{text}'"
    if style == "percent":
        return f"%q({text})"
    if style == "bare double":
        return f'"{text}"'
    if style == "double":
        text = text.replace("\\", "\\\\").replace('"', '\\"').replace("#", "\\#").replace("\r", "\\r")
        return '"' + text.replace("\n", draw(st.sampled_from(["\n", "\\n"]))) + '"'
    return '"' + "".join(f"\\u{{{ord(char):x}}}" for char in text) + '"'


@st.composite
def literal(draw: Any, value: Any, indent: str = "") -> str:
    """Ruby source for `value` in one of several styles."""
    if isinstance(value, str):
        return draw(quoted(value))
    if value is None or isinstance(value, bool):
        return {None: "nil", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return draw(st.sampled_from([str(value), f"{value:_}"]))
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list):
        items = [draw(literal(item)) for item in value]
        if (
            value
            and all(isinstance(item, str) and item.isalnum() and item.isascii() for item in value)
            and draw(st.booleans())
        ):
            return f"%w[{' '.join(value)}]"
        return f"[{', '.join(items)}]" if draw(st.booleans()) else "[ " + " ,\n".join(items) + " ]"
    many = draw(st.booleans()) and bool(value)
    deeper = indent + draw(st.sampled_from(["  ", "    ", ""]))
    pairs = [draw(_pair(key, item, deeper)) for key, item in value.items()]
    if not many:
        return "{" + ", ".join(pairs) + "}"
    comments = [draw(st.sampled_from(["", "", " # why", f"\n{deeper}# above"])) for _ in pairs]
    trailing = draw(st.booleans())
    lines = "".join(
        f"\n{deeper}{pair}{',' if trailing or number < len(pairs) - 1 else ''}{comment}"
        for number, (pair, comment) in enumerate(zip(pairs, comments, strict=True))
    )
    return "{" + lines + f"\n{indent}" + "}"


@st.composite
def _pair(draw: Any, key: str, value: Any, indent: str) -> str:
    source = draw(literal(value, indent))
    styles = ["{} => {}"]
    if key.isidentifier() and key.isascii():
        styles += ["{1}: {0}", ":{1} => {0}", '"{1}": {0}']
    style = draw(st.sampled_from(styles))
    return f"{draw(quoted(key))} => {source}" if style == "{} => {}" else style.format(source, key)


@st.composite
def reference(draw: Any, path: Path) -> str:
    """A setting in one of Ruby's notations."""
    source = draw(st.sampled_from([path[0], path[0], "self." + path[0]])) if len(path) > 1 else path[0]
    for key in path[1:]:
        plain = key.isidentifier()
        source += f"[:{key}]" if plain and draw(st.booleans()) else f"[{draw(quoted(key))}]"
    return source


@st.composite
def assignment(draw: Any) -> tuple[str, Path]:
    """A plain statement that sets a path."""
    path = draw(st.sampled_from(PATHS))
    value = draw(value_for(path))
    source = draw(literal(value))
    fits = isinstance(value, str) and value.endswith("\n") and "\r" not in value and "\nEOS" not in "\n" + value
    if fits and draw(st.booleans()):
        source = f"<<'EOS'\n{value}EOS"
    if len(path) > 1:
        statement = draw(reference(path)) + draw(st.sampled_from([" = ", "=", " =  ", " =\n  "])) + source
    elif source[0] in "{-" or draw(st.booleans()):
        statement = f"{path[0]}({source})" if "<<" not in source else f"{path[0]}(\n{source}\n)"
    else:
        statement = f"{path[0]} {source}"
    return statement + draw(st.sampled_from(["", "", " # note"]) if "\nEOS" not in statement else st.just("")), path


FOREIGN = [
    "# a comment – ü",
    "##! More: 'quotes\" and #{braces}",
    "",
    "\n",
    "#" * 40 + "\n## Registry NGINX\n" + "#" * 40,
    "#" * 40 + "\n## Container Registry settings\n" + "#" * 40,
    "# registry['storage'] = {\n#   's3' => {\n#     'bucket' => 'b'\n#   }\n# }",
    "# registry_external_url 'https://registry.example.com'",
    "# gitlab_rails['time_zone'] = 'UTC'",
    "# registry_nginx['enable'] = false",
    "#registry['nginx']['listen_port'] = 5050",
    "=begin\nnginx['listen_port'] = 1\n=end",
    "puma['x'] = YAML.load <<-'EOS'\n  registry: x\n  # gitlab_rails['time_zone'] = 'CET'\n  EOS",
    "puma['y'] = <<~A + <<~B # two\n  a\nA\n  b\nB",
    "puma['z'] = ENV['NONE'] || File.basename('x')",
    "if puma['z']\n  # gitlab_rails['time_zone'] = 'CET'\n  puma['w'] = 1\nend",
    "puma['v'] = 1; puma['u'] = 2",
    "%w[a b].each do |key|\n  puma[key] = true\nend",
    "puma['registry'] = \"registry['storage'] = 1\"",
    "from_file '/etc/gitlab/more.rb'",
]

WILD = [
    "gitlab_rails['time_zone'] = 'CET' if true",
    "if ENV['NONE']\n  registry['storage'] = { 's3' => {} }\nelse\n  external_url 'http://x'\nend",
    "unless true\n  registry['storage']['s3']['bucket'] = 'x'\nend",
    "begin\n  registry['storage'] = { 's3' => { 'bucket' => 'b' } }\nend",
    "gitlab_rails['time_zone'] = nginx['listen_port'] = 'CET'",
    "nginx['listen_port'] = registry['storage']['s3']['bucket'] = 'x'",
    "gitlab_rails['time_zone'], nginx['listen_port'] = 'CET', 80",
    "gitlab_rails['time_zone'] ||= 'CET'",
    "registry['storage'] ||= {}",
    "registry.merge!({ 'storage' => { 's3' => { 'bucket' => 'm' } }, 'other' => 1 })",
    "registry['storage'].merge!('s3' => { 'bucket' => 'm' })",
    "registry['storage'].store('s3', { 'bucket' => 's' })",
    "registry['storage'].delete('s3')",
    "registry.delete(:storage)",
    "roles ['a']\nroles << 'b'",
    "external_url = 'http://local'",
    "gitlab_rails['time_zone'] = (zone = 'CET')\npuma['zone'] = zone",
    "gitlab_rails['time_zone'] = File.read('/none') rescue 'CET'",
    "gitlab_rails['time_zone'] = <<~EOS.strip\n  CET\nEOS",
    "external_url \"http://#{'host'}\"",
    "external_url 'http://a', 'b'",
    "registry['storage'] = { 's3' => { 'bucket' => 'b'.upcase, 'region' => %w[nyc3].first }, 'cache' => nil }",
    "registry['storage'] = { 'x' => 1 }.merge('s3' => { 'bucket' => 'y' })",
    "registry['storage'] = { 's3' => { 'bucket' => <<A, 'x' => 1 } }\nbody\nA",
    "Gitlab['registry'][:storage] = { s3: { bucket: 'g', }, }",
    "Gitlab[:external_url] = 'http://g'",
    "nginx['listen_port'] = 1; registry['storage'] = { 's3' => {} }; puma['t'] = 1",
    "true && (nginx['listen_port'] = 81)",
    "nginx['listen_port'] = if true then 1 else 2 end",
    "other = registry['nginx']\nother['ssl_certificate'] = 'x' if false",
]


@dataclass(frozen=True)
class Document:
    """Pieces, each with the path that it sets or None, and how they are joined."""

    pieces: list[tuple[str, Path | None]]
    crlf: bool
    bom: bool
    final: bool
    end: bool

    def text(self) -> bytes:
        joined = "\n".join(source for source, _ in self.pieces)
        if self.pieces and (self.final or self.end):
            joined += "\n"
        # Ruby 3.1 itself fails on a heredoc that begins on the line of a byte order mark.
        mark = "\ufeff" if self.bom and "<<" not in joined else ""
        return self._bytes(mark + joined + ("__END__\nexternal_url 'x'\n" if self.end else ""))

    def foreign(self, wanted: dict[Path, Any]) -> list[bytes]:
        """The pieces that no wanted setting affects, in order."""
        return [
            self._bytes(source)
            for source, path in self.pieces
            if path is None or not any(path[: len(goal)] == goal or goal[: len(path)] == path for goal in wanted)
        ]

    def _bytes(self, text: str) -> bytes:
        return (text.replace("\n", "\r\n") if self.crlf else text).encode()


def _documents(piece: Any) -> Any:
    flags = st.sampled_from([False, False, False, True])
    return st.builds(Document, st.lists(piece, max_size=12), flags, flags, flags.map(lambda flag: not flag), flags)


_foreign = st.sampled_from(FOREIGN).map(lambda source: (source, None))
_wild = st.sampled_from(WILD).map(lambda source: (source, None))
plain_documents = _documents(assignment() | _foreign)
wild_documents = _documents(assignment() | _foreign | _wild)

_bits = [
    "\\n",
    "\\'",
    '\\"',
    "\\\\",
    "\\#",
    "\\u00e9",
    "\\u{41 1f600}",
    "\\x41",
    "\\xe9",
    "\\101",
    "\\377",
    "\\0",
    "\\e",
    "\\s",
    "\\cA",
    "\\M-a",
]
_bits += [
    "\\q",
    "\\\n",
    "#{1}",
    "#",
    "'",
    '"',
    "é",
    " ",
    "\n",
    "\t",
    "a",
    "(",
    ")",
    "[",
    "]",
    "|",
    "{",
    "}",
    "#$0",
    "%",
]
_inner = st.lists(st.sampled_from(_bits), max_size=6).map("".join)
_shells = [
    "'{}'",
    '"{}"',
    "%q({})",
    "%Q[{}]",
    "%({})",
    "%|{}|",
    "%w[{}]",
    "%W[{}]",
    "%i[{}]",
    ":'{}'",
    ':"{}"',
    "'{}' '{}'",
    "?{}",
    '{{"{}": 1}}',
]
_heredocs = [
    "<<E\n{}\nE",
    "<<-E\n  {}\n  E",
    "<<~E\n  {}\n    b\n\n  c\n  E",
    "<<~'E'\n  {}\n   d\n E",
    "<<'E'\n{}\nE",
    '<<"E"\n{}\nE',
]
_others = [
    "017",
    "0o17",
    "0x1F",
    "0b11",
    "1_000",
    "0d19",
    "1e3",
    "1.5e-3",
    "1_0.0_1",
    "-1",
    "-0.5",
    "+1",
    "1r",
    "2i",
    "- 1",
    "08",
    "1.0.to_s",
    "!true",
]
_others += [
    "{a: 1, 'a' => 2}",
    "{1 => 2}",
    "{nil => 1}",
    "{**{}}",
    "[*[1]]",
    "1, 2",
    "(1)",
    "nil",
    "true",
    ":a",
    ":a?",
    ":+",
    "{a: {b: [c: 1]}}",
    "__LINE__",
]
sources = (
    st.builds(
        lambda shell, inner: (
            shell.replace("{{", "\0").replace("}}", "\1").replace("{}", inner).replace("\0", "{").replace("\1", "}")
        ),
        st.sampled_from(_shells + _heredocs),
        _inner,
    )
    | st.sampled_from(_others)
    | values.flatmap(literal)
)

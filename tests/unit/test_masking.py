"""Secrets are masked in every notation in which programs print them, and wherever their output is cut into pieces."""

from __future__ import annotations

import base64
import json
import random
import subprocess
import time

import pytest

from provision import masking
from provision.masking import LONGEST_LINE, LineJoiner, OutputMasker, last_lines
from provision.secret import MASK, Secret, mask

pytestmark = pytest.mark.slow

# Every sign that some notation escapes, and a letter outside ASCII.
SPECIAL = "can\"ary'0f2b/ä&<$x>+ =`t%#{y}\\n;|?!~@q"
TOKEN = "canary0f2bVK31kd8Qm"

_RUBY = "s = $stdin.read.force_encoding('UTF-8'); print '[' + ({}) + ']'"
_PYTHON = "import sys; s = sys.stdin.buffer.read().decode(); sys.stdout.buffer.write(('[' + ({}) + ']').encode())"
_SHELL = 's=$(cat; echo .); s=${s%.}; printf "[%s]" "$(COMMAND)"'


def _ruby(expression: str, *libraries: str) -> list[str]:
    return ["ruby", *(f"-r{one}" for one in libraries), "-e", _RUBY.format(expression)]


def _python(expression: str) -> list[str]:
    return ["python3", "-c", _PYTHON.format(expression)]


def _node(expression: str) -> list[str]:
    return [
        "node",
        "-e",
        f"const s = require('fs').readFileSync(0, 'utf8'); process.stdout.write('[' + {expression} + ']')",
    ]


def _bash(command: str) -> list[str]:
    return ["bash", "-c", _SHELL.replace("COMMAND", command)]


PROGRAMS = {
    "as it is": ["sh", "-c", "printf '['; cat; printf ']'"],
    "base64": _bash('printf %s "$s" | base64 -w0'),
    "openssl": _bash('printf %s "$s" | openssl base64 -A'),
    "base64 without padding": _bash('printf %s "$s" | base64 -w0 | tr -d ='),
    "base64 of user:secret": _bash('printf %s "u:$s" | base64 -w0'),
    "base64 of user:secret, another length": _bash('printf %s "us:$s" | base64 -w0'),
    "base64 of user:secret, a third length": _bash('printf %s "use:$s" | base64 -w0'),
    "base64 of a line": _bash('echo "$s" | base64 -w0'),
    "ruby urlsafe_base64": _ruby("Base64.urlsafe_encode64('x' + s + '>>', padding: false)", "base64"),
    "ruby CGI.escape": _ruby("CGI.escape(s)", "cgi"),
    "ruby url_encode": _ruby("ERB::Util.url_encode(s)", "erb"),
    "ruby CGI.escapeHTML": _ruby("CGI.escapeHTML(s)", "cgi"),
    "ruby inspect": _ruby("s.inspect[1..-2]"),
    "ruby inspect in ASCII": _ruby("s.encode('UTF-8').dump[1..-2]"),
    "ruby to_json": _ruby("s.to_json[1..-2]", "json"),
    "ruby Shellwords": _ruby("s.shellescape", "shellwords"),
    "ruby YAML": _ruby("s.to_yaml.sub('--- ', '').strip.gsub(/\\A['\"]|['\"]\\z/, '')", "yaml"),
    "python quote": _python("__import__('urllib.parse').parse.quote(s, safe='')"),
    "python quote, a path": _python("__import__('urllib.parse').parse.quote(s)"),
    "python quote_plus": _python("__import__('urllib.parse').parse.quote_plus(s)"),
    "python quote, lower case": _python(
        "__import__('re').sub('%..', lambda f: f[0].lower(), __import__('urllib.parse').parse.quote(s, safe=''))"
    ),
    "python json": _python("__import__('json').dumps(s)[1:-1]"),
    "python json, UTF-8": _python("__import__('json').dumps(s, ensure_ascii=False)[1:-1]"),
    "python json in json": _python("__import__('json').dumps(__import__('json').dumps(s))[3:-3]"),
    "python html": _python("__import__('html').escape(s)"),
    "python shlex": _python("__import__('shlex').quote(s).strip(chr(39))"),
    "python repr": _python("repr(s)[1:-1]"),
    "bash printf %q": _bash('printf %q "$s"'),
    "bash @Q": _bash("q=${s@Q}; q=${q#\\'}; printf %s \"${q%\\'}\""),
    "bash set -x": _bash('{ set -x; : "$s"; } 2>&1 | sed "s/^+* : \'*//; s/\'*$//"'),
    "node encodeURIComponent": _node("encodeURIComponent(s)"),
    "node json": _node("JSON.stringify(s).slice(1, -1)"),
    "node basic authorization": _node("Buffer.from('oauth2:' + s + '\\n').toString('base64')"),
    "jq @uri": ["jq", "-Rsj", '"[" + @uri + "]"'],
    "jq @html": ["jq", "-Rsj", '"[" + @html + "]"'],
    "perl": ["perl", "-0777", "-ne", "print '[', quotemeta($_) =~ s/\\\\([^\\x00-\\x7f\\n])/$1/gr, ']'"],
    "curl --data-urlencode": _bash(
        "printf %s \"$s\" | curl -s -o /dev/null -G --data-urlencode x@- -w '%{url_effective}' http://127.0.0.1:1/"
        " | sed 's/.*x=//'"
    ),
}


@pytest.fixture(autouse=True)
def no_other_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short secret of another test may stand by chance in a base64 text, which is then masked."""
    monkeypatch.setattr(masking, "_index", masking._Index())
    monkeypatch.setattr(masking, "_registered", set())


@pytest.mark.parametrize("secret", [SPECIAL, TOKEN], ids=["special", "token"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_programs_make_of_a_secret_is_masked(program: str, secret: str) -> None:
    """Real programs print it, in the notation of a shell, JSON, HTML, a URL or Ruby, or in base64. `make system` installs them."""
    done = subprocess.run(PROGRAMS[program], input=secret.encode(), capture_output=True, check=True)
    printed = done.stdout.decode()
    assert printed.startswith("[")
    assert mask(printed) == printed, "the secret is not known yet"
    Secret(secret)
    assert mask(printed) == f"[{MASK}]"


def _key() -> str:
    """A private key in PEM, as openssl makes it."""
    command = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp521r1"]
    return subprocess.run(command, capture_output=True, check=True).stdout.decode()


def test_every_line_of_a_known_key_is_masked() -> None:
    """The last line is often short. The lines before and after the key, which every key has, stay readable."""
    key = _key()
    Secret(key)
    *_, last, end = key.splitlines()
    assert all(mask(f"+ {line}") == f"+ {MASK}" for line in key.splitlines()[1:-1])
    assert mask(f"| {last[:60]}\n| {end}").endswith(f"\n| {end}")
    assert mask("-----BEGIN CERTIFICATE-----") == "-----BEGIN CERTIFICATE-----"


@pytest.mark.parametrize("wrap", ["{}", "key = <<~KEY\n{}KEY\n", '{{"key": "{}"}}'], ids=["file", "heredoc", "json"])
def test_a_private_key_is_masked_without_being_known(wrap: str) -> None:
    """In a file, in a program's text, and as a string with `\\n` for the line breaks."""
    key = _key()
    printed = wrap.format(json.dumps(key)[1:-1] if "json" in wrap or '"' in wrap else key)
    masked = mask(printed)
    assert MASK in masked
    assert not any(line in masked for line in key.splitlines()[1:-1])
    assert "-----END PRIVATE KEY-----" in masked


def test_base64_that_is_broken_into_lines() -> None:
    """`base64` breaks at 76 columns, `openssl base64` at 64: each line is masked."""
    secret = "canary" * 40
    Secret(secret)
    for command in (["base64"], ["openssl", "base64"]):
        printed = subprocess.run(command, input=secret.encode(), capture_output=True, check=True).stdout.decode()
        assert set(mask(printed, keep_lines=True).split()) == {MASK}
        assert all(mask(line) == MASK for line in printed.split() if len(line) >= 8)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://user:pa/s@s@proxy:3128/", "http://user:***@proxy:3128/"),
        ("http:\\/\\/user:pass@proxy", "http:\\/\\/user:***@proxy"),
        ('"http://user:pa\'ss@proxy"', '"http://user:***@proxy"'),
        ("https://0123456789abcdef@sentry.example.com/1", "https://***@sentry.example.com/1"),
        ("git clone https://oauth2:xyz@gitlab/x.git", "git clone https://oauth2:***@gitlab/x.git"),
        ("ssh://git@gitlab.example.com/x", "ssh://git@gitlab.example.com/x"),
        ("https://reg.example.com:5050/g/p@sha256:00", "https://reg.example.com:5050/g/p@sha256:00"),
        ("http://[::1]:80/x@y http://a:b@c", "http://[::1]:80/x@y http://a:***@c"),
        ("https://example.com/a:b and me@example.com", "https://example.com/a:b and me@example.com"),
        ("token glpat-abcdefghij1234567890 GR1348941abcdefghij", "token *** ***"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, masked: str) -> None:
    """Passwords and tokens in URLs, as people write them, and GitLab's tokens. Other addresses stay readable."""
    assert mask(text) == masked


def test_what_is_too_short_to_mask() -> None:
    """Three letters, and short lines of a secret with several lines, appear in unrelated output all the time."""
    for secret in ("abc", "first line of it\nshort\n"):
        Secret(secret)
    assert mask("abc abcd short") == "abc abcd short"
    assert mask("first line of it") == MASK
    Secret("abcd")
    assert mask("abc abcd") == f"abc {MASK}"


def test_overlapping_secrets_leave_nothing() -> None:
    """The end of one is the beginning of another."""
    Secret("canary-one-two")
    Secret("two-three-canary")
    assert mask("canary-one-two-three-canary") == MASK


def _pieces(data: bytes, sizes: random.Random) -> list[bytes]:
    pieces = []
    while data:
        size = sizes.randint(1, 7)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


@pytest.mark.parametrize("seed", range(20))
def test_a_secret_that_is_cut_by_packets_is_masked(seed: int) -> None:
    """Output arrives in arbitrary pieces, which also cut letters of several bytes."""
    Secret(SPECIAL)
    text = f"a {SPECIAL} b\n{SPECIAL}\r{SPECIAL}\r\nüben {base64.b64encode(SPECIAL.encode()).decode()} end {SPECIAL}"
    masker = OutputMasker()
    printed = [masker.add(piece) for piece in _pieces(text.encode(), random.Random(seed))]
    assert all(one == "" or one[-1] in "\r\n" for one in printed), "only whole lines are passed on"
    assert "".join([*printed, masker.end()]) == f"a {MASK} b\n{MASK}\r{MASK}\r\nüben {MASK} end {MASK}"


@pytest.mark.parametrize("size", [1000, 4096, 32768, 1 << 20])
def test_a_line_without_end_is_passed_on_and_never_cut_inside_a_secret(size: int) -> None:
    """The masker holds at most two of its longest lines."""
    Secret(SPECIAL)
    Secret(TOKEN)
    generator = random.Random(size)
    text = "".join(generator.choice([SPECIAL, TOKEN, "x" * generator.randint(1, 3000) + " "]) for _ in range(2000))
    data, masker = text.encode(), OutputMasker()
    printed = ""
    for at in range(0, len(data), size):
        printed += masker.add(data[at : at + size])
        assert masker._size <= LONGEST_LINE + size
    assert len(printed) > len(text) / 2
    assert printed + masker.end() == mask(text)


def test_the_lines_of_a_key_are_masked_as_they_arrive() -> None:
    """Also of a key that is not known; the output after it is readable again."""
    key = _key()
    masker = OutputMasker()
    printed = "".join(masker.add(piece) for piece in _pieces(f"before\n{key}after\n".encode(), random.Random(1)))
    lines = [MASK] * (len(key.splitlines()) - 2)
    expected = ["before", "-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----", "after", ""]
    assert printed == "\n".join(expected)


def test_a_key_that_never_ends_hides_only_what_looks_like_one() -> None:
    """A program that only mentions a key does not silence the rest of its output."""
    masker = OutputMasker()
    assert masker.add(b"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADAN\n3 rows written\nMIIE\n").endswith(
        f"\n{MASK}\n3 rows written\nMIIE\n"
    )


def test_joining_lines_of_a_stream() -> None:
    """Pieces of two streams arrive in turn: each stream has a joiner of its own."""
    joiner = LineJoiner()
    assert [joiner.add(one) for one in (b"a", b"b\nc", b"d\r", b"e\r\n", b"f")] == [
        b"",
        b"ab\n",
        b"",
        b"cd\re\r\n",
        b"",
    ]
    assert joiner.end() == b"f"
    assert joiner.add(b"x" * (LONGEST_LINE + 1)) == b"x" * (LONGEST_LINE + 1)


def test_the_end_of_an_output_is_cut_off_after_masking() -> None:
    """A secret of several lines is masked as a whole, also where only its last line is printed."""
    Secret("first line of it\nshort")
    assert last_lines("a\nfirst line of it\nshort\nb\n", 2) == f"{MASK}\nb"


def test_masking_is_fast() -> None:
    """With 200 secrets, 1 MB takes less than a second, whatever it contains."""
    secrets = [f"{index:03}{SPECIAL}{index * 7919}" for index in range(150)]
    secrets += [
        "\n".join(base64.b64encode(random.Random(f"{at}/{line}").randbytes(48)).decode() for line in range(50))
        for at in range(50)
    ]
    for one in secrets:
        Secret(one)
    size = 1 << 20
    texts = {
        "ordinary output": "Get:1 http://deb.debian.org/debian bookworm/main amd64 docker-ce 5:28.0 [25 MB]\n",
        "secrets": f"x {secrets[0]}\n",
        "beginnings of secrets": secrets[0][:8],
        "beginnings of addresses": "://:",
        "passwords": "http://a:b@c ",
        "beginnings of keys": "-----BEGIN PRIVATE KEY-----",
        "one line of base64": base64.b64encode(secrets[0].encode() * 3).decode(),
    }
    for name, text in texts.items():
        started = time.process_time()
        mask((text * (size // len(text) + 1))[:size])
        assert time.process_time() - started < 1, name
    started = time.process_time()
    masker = OutputMasker()
    for _ in range(size // 16):
        masker.add(b"sixteen bytes of")
    assert time.process_time() - started < 1, "small pieces of a line without end"

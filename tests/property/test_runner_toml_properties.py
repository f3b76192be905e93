"""Random config.toml files are edited: the data is exact, and the bytes of others stay."""

from __future__ import annotations

import copy
import tomllib
from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from provision.editing.diff import masked_text
from provision.editing.toml.edit import reconcile
from provision.editing.toml.masking import diff, find_secrets
from provision.editing.toml.model import RunnerId, WantedRunner, fingerprint

URL = "https://gitlab.example.com"
OWNED = ["limit", "output_limit", "docker.image", "docker.memory", "cache.Type", "cache.s3.AccessKey", "environment"]

scalars = st.sampled_from(
    [
        "1",
        "0",
        "true",
        "1.5",
        "inf",
        '"a"',
        "'b # c'",
        '"é\\n\\" = ["',
        "2026-11-20T10:11:12Z",
        '"""x\n# no\n[y]\n"""',
        "'''\n'''",
    ]
)
values = st.one_of(
    scalars,
    scalars,
    st.lists(scalars, max_size=3).map(lambda some: "[" + ", ".join(some) + "]"),
    st.lists(scalars, min_size=1, max_size=3).map(
        lambda some: "[ # why\n" + "".join(f"      {one},\n" for one in some) + "    ]"
    ),
    st.lists(scalars, max_size=2).map(
        lambda some: "{ " + ", ".join(f"k{n} = {one}" for n, one in enumerate(some) if "\n" not in one) + " }"
    ),
)
wanted_values = st.one_of(
    st.integers(-5, 5),
    st.booleans(),
    st.floats(allow_nan=True),
    st.text(max_size=8),
    st.lists(st.text(max_size=4), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=2),
    st.lists(
        st.fixed_dictionaries({"name": st.sampled_from(["dind", "db"])}, optional={"alias": st.text(max_size=3)}),
        max_size=2,
    ),
)
docker_wants = st.dictionaries(
    st.sampled_from(["image", "privileged", "volumes", "services", "memory", "sysctls", "odd key"]),
    wanted_values,
    max_size=4,
)
cache_wants = st.fixed_dictionaries(
    {},
    optional={
        "Type": st.text(max_size=3),
        "s3": st.dictionaries(st.sampled_from(["AccessKey", "Insecure"]), wanted_values, max_size=2),
    },
)
settings_wants = st.fixed_dictionaries(
    {},
    optional={
        "executor": st.sampled_from(["docker", "shell"]),
        "limit": wanted_values,
        "environment": st.lists(st.text(max_size=5), max_size=3),
        "docker": docker_wants,
        "cache": cache_wants,
        "custom_build_dir": st.just({}),
    },
)


@st.composite
def comments(draw: st.DrawFn, indent: str) -> str:
    """Nothing, a blank line or a comment line."""
    return draw(st.sampled_from(["", "", "", "\n", f'{indent}# note [a] = "b"\n', "\n# apart\n\n", " \t\n"]))


@st.composite
def pair_lines(draw: st.DrawFn, names: list[str], indent: str) -> str:
    """Statements under some of `names`, with comments around and behind them."""
    text = ""
    for name in draw(st.lists(st.sampled_from(names), unique=True, max_size=4)):
        text += draw(comments(indent))
        equals = draw(st.sampled_from([" = ", "=", "\t=  "]))
        behind = draw(st.sampled_from(["", "", "  # behind", " "]))
        text += f"{indent}{name}{equals}{draw(values)}{behind}\n"
    return text + draw(comments(indent))


@st.composite
def tables(draw: st.DrawFn, table: str, names: list[str], indent: str) -> tuple[str, str]:
    """One table of an entry in one of TOML's notations: (statements of the entry, sections behind them)."""
    form = draw(st.sampled_from(["none", "header", "header", "inline", "dotted", "quoted"]))
    if form == "header":
        return "", f"{indent}[runners.{table}]{draw(st.sampled_from(['', ' # head']))}\n" + draw(
            pair_lines(names, indent * 2)
        )
    if form == "quoted":
        return "", f'{indent}[ runners . "{table}" ]\n' + draw(pair_lines(names, indent * 2))
    if form == "inline":
        some = draw(st.lists(st.sampled_from(names), unique=True, max_size=2))
        return f"{indent}{table} = {{" + ", ".join(f"{name} = 1" for name in some) + "}\n", ""
    if form == "dotted":
        some = draw(st.lists(st.sampled_from(names), unique=True, max_size=3))
        return "".join(f"{indent}{table}.{name} = {draw(scalars)}\n" for name in some), ""
    return "", ""


@st.composite
def entries(draw: st.DrawFn, number: int) -> str:
    """One `[[runners]]` with all its tables."""
    indent = draw(st.sampled_from(["", "  ", "  ", "\t"]))
    docker, docker_sections = draw(tables("docker", ["image", "privileged", "volumes", '"odd key"', "foreign"], indent))
    cache, cache_sections = draw(tables("cache", ["Type", "Shared", "foreign"], indent))
    if not cache and draw(st.booleans()):
        cache_sections += f"{indent}[runners.cache.s3]\n" + draw(pair_lines(["AccessKey", "Insecure"], indent * 2))
    if not docker and draw(st.booleans()):
        for _ in range(draw(st.integers(1, 2))):
            docker_sections += f"\n{indent}[[runners.docker.services]]\n{indent}name = 'x'\n"
    sections = draw(st.permutations([docker_sections, cache_sections]))
    above = draw(st.sampled_from(["", "\n", "# mine\n"]))
    head = f"{above}{draw(st.sampled_from(['[[runners]]', '[[ runners ]] # head', '  [[runners]]']))}\n"
    own = f'{indent}name = "r{number}"\n{indent}url = "{URL}"\n{indent}token = "token-{number}"\n'
    rest = draw(pair_lines(["limit", "environment", "executor", "unknown", "a.b"], indent))
    return head + "".join(draw(st.permutations([own, rest, docker + cache]))) + "".join(sections)


@st.composite
def documents(draw: st.DrawFn) -> tuple[list[str], list[bool]]:
    """A document as blocks, and for each block whether it is a runner entry."""
    blocks, is_entry = [draw(pair_lines(["concurrent", "check_interval", "log_level", "x.y"], ""))], [False]
    tables_left = draw(
        st.lists(st.sampled_from(["session_server", "other", "experimental.deep"]), unique=True, max_size=2)
    )
    for number in range(draw(st.integers(0, 3))):
        if tables_left and draw(st.booleans()):
            blocks.append(f"\n[{tables_left.pop()}]\n" + draw(pair_lines(["session_timeout", "z"], "  ")))
            is_entry.append(False)
        blocks.append(draw(entries(number)))
        is_entry.append(True)
    return blocks, is_entry


def merged(have: Any, want: Any) -> Any:
    """The expected data: a deep merge."""
    if not isinstance(have, dict) or not isinstance(want, dict):
        return copy.deepcopy(want)
    return have | {key: merged(have.get(key), value) for key, value in want.items()}


def parsed(text: str) -> dict[str, Any]:
    """The data, with floats as texts so that nan equals nan and 1 is not 1.0."""
    return tomllib.loads(text, parse_float=lambda number: ("float", str(float(number))))  # type: ignore[return-value]


def floats_as_texts(value: Any) -> Any:
    """The same for plain data."""
    if isinstance(value, dict):
        return {key: floats_as_texts(one) for key, one in value.items()}
    if isinstance(value, list):
        return [floats_as_texts(one) for one in value]
    return ("float", str(value)) if isinstance(value, float) else value


def typed(value: Any) -> Any:
    """Data in which True is not 1."""
    if isinstance(value, dict):
        return {key: typed(one) for key, one in value.items()}
    if isinstance(value, list):
        return [typed(one) for one in value]
    return (type(value).__name__, value)


def as_written(blocks: list[str], crlf: bool, ends: bool) -> list[str]:
    """The blocks with the document's line ends; perhaps without the last one."""
    blocks = [block.replace("\n", "\r\n") if crlf else block for block in blocks]
    if not ends:
        blocks[-1] = blocks[-1].rstrip("\r\n")
    return blocks


@settings(max_examples=120, deadline=None)
@given(
    documents(),
    st.booleans(),
    st.booleans(),
    st.dictionaries(st.integers(0, 2), settings_wants, max_size=2),
    st.booleans(),
)
def test_deep_merge_is_exact_and_foreign_blocks_stay(
    document: tuple[list[str], list[bool]], crlf: bool, ends: bool, wants: dict[int, dict[str, Any]], top: bool
) -> None:
    """The data is the deep merge, blocks of others stay byte for byte, and a second run changes nothing."""
    blocks, is_entry = as_written(document[0], crlf, ends), document[1]
    text = "".join(blocks)
    before = parsed(text)
    wanted_top = (
        {"concurrent": 7, "session_server": {"session_timeout": 9}}
        if top and isinstance(before.get("session_server", {}), dict)
        else {}
    )
    runners = [WantedRunner(f"r{number}", URL, f"token-{number}", want) for number, want in sorted(wants.items())]

    done = reconcile(text, top=wanted_top, runners=runners)

    expected = merged(before, wanted_top)
    present = sum(is_entry)
    for number, want in sorted(wants.items()):
        full = {"name": f"r{number}", "url": URL, "token": f"token-{number}"} | floats_as_texts(want)
        if number < present:
            expected["runners"][number] = merged(expected["runners"][number], full)
        else:
            expected.setdefault("runners", []).append(full)
    assert typed(parsed(done.text)) == typed(expected)
    assert done.changed == (done.text != text)
    again = reconcile(done.text, top=wanted_top, runners=runners)
    assert again.text == done.text
    assert not again.changed
    entry = -1
    for block, runner in zip(blocks, is_entry, strict=True):
        entry += runner
        if runner and entry not in wants:
            assert block.strip() in done.text
    assert [line.strip() for line in text.splitlines() if line.strip().startswith("# apart")] == [
        line.strip() for line in done.text.splitlines() if line.strip().startswith("# apart")
    ]
    if crlf and "\n" in text:
        assert "\n" not in done.text.replace("\r\n", "")
    assert bool(diff(text, done.text)) == done.changed


@settings(max_examples=60, deadline=None)
@given(documents(), st.booleans(), settings_wants)
def test_added_and_dropped_again_is_the_same_text(
    document: tuple[list[str], list[bool]], crlf: bool, want: dict[str, Any]
) -> None:
    """Adding an entry and dropping it restores the file."""
    text = "".join(as_written(document[0], crlf, True))
    added = reconcile(text, top={}, runners=[WantedRunner("new", URL, "token-new", want)])
    assert added.changed
    back = reconcile(added.text, top={}, runners=[], dropped=[RunnerId(URL, fingerprint("token-new"))])
    assert back.text == text


@settings(max_examples=60, deadline=None)
@given(documents(), st.lists(st.sampled_from(OWNED), unique=True), st.integers(0, 2))
def test_dropped_keys_go_and_nothing_else(
    document: tuple[list[str], list[bool]], owned: list[str], number: int
) -> None:
    """Keys that we set and no longer want are removed; every other value stays."""
    blocks, is_entry = document
    assume(number < sum(is_entry))
    text = "".join(blocks)
    done = reconcile(
        text, top={}, runners=[WantedRunner(f"r{number}", URL, f"token-{number}")], owned_keys={f"r{number}": owned}
    )
    expected = parsed(text)
    entry = expected["runners"][number]
    for key in sorted(owned):
        path = key.split(".")
        nodes = [entry]
        while len(nodes) < len(path) and isinstance(nodes[-1].get(path[len(nodes) - 1]), dict):
            nodes.append(nodes[-1][path[len(nodes) - 1]])
        if (
            len(nodes) < len(path)
            or path[-1] not in nodes[-1]
            or (isinstance(nodes[-1][path[-1]], dict) and nodes[-1][path[-1]])
        ):
            continue
        del nodes[-1][path[-1]]
        for depth in range(len(path) - 1, 0, -1):
            if not nodes[depth]:
                del nodes[depth - 1][path[depth - 1]]
    assert typed(parsed(done.text)) == typed(expected)


@settings(max_examples=60, deadline=None)
@given(documents(), st.integers(0, 2), st.booleans())
def test_rotation_swaps_one_value(document: tuple[list[str], list[bool]], number: int, crlf: bool) -> None:
    """A new token for a runner whose old one is known: the old token's bytes are replaced, and no other."""
    blocks, is_entry = document
    assume(number < sum(is_entry))
    text = "".join(as_written(blocks, crlf, True))
    old = fingerprint(f"token-{number}")
    done = reconcile(text, top={}, runners=[WantedRunner(f"r{number}", URL, "token-fresh", previous=(old,))])
    assert done.text == text.replace(f'"token-{number}"', '"token-fresh"')
    assert "token-fresh" not in diff(text, done.text)


@settings(max_examples=60, deadline=None)
@given(
    st.text(alphabet="[]{}=\"'#\n\r,. \ttokenab\\é0", max_size=60), st.text(alphabet="[]{}=\"'#\n,. tok", max_size=60)
)
@example('token = "abc', "")
def test_diff_keeps_lines_of_anything(before: str, after: str) -> None:
    """Masking keeps the number of lines of any text, valid or not."""
    shown = diff(before, after)
    assert (shown == "") == (before == after)
    assert masked_text(before.encode(), find_secrets).count("\n") == before.count("\n")


SECRETS = [
    'token = "canary"',
    "SecretKey='canary' # was canary-old = \"\"",
    '"AccessKey" = """canary\ncanary"""',
    's3 = { BucketName = "b", SecretKey = "canary" }',
    'x.y.password = "canary"',
    'environment = ["A=canary", "canary",\n  "B=canary"]',
    '# token = "canary"',
    'script = "export DB_PASSWORD=canary; true"',
    "password = 'canary",
]


@settings(max_examples=60, deadline=None)
@given(documents(), st.lists(st.sampled_from(SECRETS), min_size=1, max_size=3), st.data())
def test_the_diff_prints_no_secret(
    document: tuple[list[str], list[bool]], secrets: list[str], data: st.DataObject
) -> None:
    """Values of secret-looking keys are masked in any document, valid or not."""
    lines = "".join(document[0]).split("\n")
    whole = [n for n in range(len(lines)) if _parses("\n".join(lines[:n]))]  # not inside a string
    for secret in secrets:
        lines.insert(data.draw(st.sampled_from(whole)), secret)
        whole = whole[:1]
    assert "canary" not in diff("", "\n".join(lines)).replace("canary-old", "")


def _parses(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True

"""Which entries of apt's sources files are disabled: apt itself reads the result."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.editing.apt_sources import AptEntry, disable

URI = "https://download.docker.com/linux/ubuntu"
KEY = "/etc/apt/keyrings/docker.asc"
OURS = AptEntry(URI, "jammy", ("stable",), KEY)
OURS_TEXT = f"Types: deb\nURIs: {URI}\nSuites: jammy\nComponents: stable\nSigned-By: {KEY}\n"
WHY = "disabled: docker.sources has this repository"
OTHER = "deb https://repo.example.com/apt stable main\n"
RIVAL = f"deb [arch=amd64 signed-by=/usr/share/keyrings/docker.gpg] {URI} jammy stable"


def off(name: str, text: str) -> str:
    """The text of a file afterwards; once more changes nothing."""
    after = disable(name, text.encode(), OURS, WHY)
    assert disable(name, after, OURS, WHY) == after
    return after.decode()


def apt(folder: Path, files: dict[str, str]) -> list[str]:
    """The repositories that apt would fetch, `ADDRESS/dists/SUITE`. No file of this machine's apt is read."""
    parts = folder / "parts"
    parts.mkdir(exist_ok=True)
    for name, text in files.items():
        (parts / name).write_text(text)
    options = ("Dir::Etc::sourcelist=/dev/null", f"Dir::Etc::sourceparts={parts}", f"Dir::State::lists={folder}/lists")
    argv = ["apt-get", "update", "--print-uris", *(word for option in options for word in ("-o", option))]
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    return sorted({line.split("'")[1].removesuffix("/InRelease") for line in done.stdout.splitlines()})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"{OTHER}{RIVAL}\n", f"{OTHER}# {RIVAL} # {WHY}\n"),
        (f"# {RIVAL} # disabled on upgrade to jammy\n{OTHER}", None),
        (f"{RIVAL.replace('jammy', 'focal')}\n", None),
        (f"{RIVAL.replace('ubuntu', 'ubuntu-testing')}\n", None),
        ("deb http://Download.docker.com/linux/ubuntu/ jammy stable", f"# deb http://Download.docker.com/linux/ubuntu/ jammy stable # {WHY}"),
        (f"deb {URI} jammy stable # mine\r\n", f"# deb {URI} jammy stable # mine # {WHY}\r\n"),
        (f"deb {URI} jammy test\n", f"# deb {URI} jammy test # {WHY}\n"),
        (f"deb [signed-by={KEY}] {URI} jammy stable\n", f"# deb [signed-by={KEY}] {URI} jammy stable # {WHY}\n"),
        (f"deb [signed-by={KEY}] {URI} jammy test\n", None),
        (f"deb-src [signed-by={KEY}] {URI} jammy stable\n", None),
        (f"deb-src {URI} jammy stable\n", f"# deb-src {URI} jammy stable # {WHY}\n"),
        (f"deb [trusted=yes signed-by={KEY}] {URI} jammy test\n", f"# deb [trusted=yes signed-by={KEY}] {URI} jammy test # {WHY}\n"),
    ],
    ids=["with others", "comment", "other suite", "other path", "http", "comment behind", "other component and key",
         "twice", "our key, other component", "our key, sources", "sources", "another option"],
)  # fmt: skip
def test_a_line(tmp_path: Path, before: str, after: str | None) -> None:
    """An entry in conflict becomes a comment; apt reads the others, and ours."""
    found = off("x.list", before)
    assert found == (before if after is None else after)
    assert f"{URI}/dists/jammy" in apt(tmp_path, {"x.list": found, "docker.sources": OURS_TEXT})


STANZA = f"Types: deb\nURIs: {URI}\nSuites: jammy\nComponents: stable\n"
THIRD = "# third\nTypes: deb\nURIs: https://repo.example.com/apt\nSuites: stable\nComponents: main\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"{THIRD}\n{STANZA}", f"{THIRD}\n# {WHY}\nEnabled: no\n{STANZA}"),
        (f"{STANZA}\n\n{THIRD}", f"# {WHY}\nEnabled: no\n{STANZA}\n\n{THIRD}"),
        (f"{THIRD}\nEnabled: no\n{STANZA}", None),
        (f"enabled: yes\n{STANZA}", f"# {WHY}\nenabled: no\n{STANZA}"),
        (f"# {STANZA.replace(chr(10), chr(10) + '# ')}\n{THIRD}", None),
        (STANZA.replace("URIs: ", "URIs: https://repo.example.com/apt\n  "), STANZA.replace(URI, "https://repo.example.com/apt")),
        (STANZA.replace("jammy", "focal jammy"), STANZA.replace("jammy", "focal")),
        (
            f"# mine\n{STANZA.replace('jammy', 'focal jammy').replace(URI, f'{URI} https://repo.example.com/apt')}",
            f"# mine\n{STANZA.replace('jammy', 'focal jammy').replace(URI, 'https://repo.example.com/apt')}\n\n"
            f"{STANZA.replace('jammy', 'focal').rstrip()}\n\n".replace("\n\n\n", "\n\n").removesuffix("\n"),
        ),
        (f"{STANZA}Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n", f"# {WHY}\nEnabled: no\n{STANZA}Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n"),
    ],
    ids=["of two", "first of two", "disabled", "enabled", "comment", "two addresses", "two suites", "both", "key inside"],
)  # fmt: skip
def test_a_stanza(tmp_path: Path, before: str, after: str | None) -> None:
    """Only the repository in conflict is left out; apt reads the others, and ours."""
    found = off("x.sources", before)
    expected = before if after is None else after
    assert found.split() == expected.split()
    assert len(found.splitlines()) == len(expected.splitlines())
    assert f"{URI}/dists/jammy" in apt(tmp_path, {"x.sources": found, "docker.sources": OURS_TEXT})


_word = st.sampled_from([URI, f"{URI}/", "https://repo.example.com/apt", "http://download.docker.com/linux/debian"])
_suite = st.sampled_from(["jammy", "focal", "stable"])


@st.composite
def stanzas(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Addresses and suites of a stanza."""
    return (
        draw(st.lists(_word, min_size=1, max_size=3, unique_by=lambda uri: uri.rstrip("/"))),
        draw(st.lists(_suite, min_size=1, max_size=3, unique=True)),
    )


@given(st.lists(stanzas(), min_size=1, max_size=3))
def test_all_other_repositories_stay(entries: list[tuple[list[str], list[str]]]) -> None:
    """Whatever the stanzas combine: afterwards the file names what it named before, less ours."""

    def text(entry: tuple[list[str], list[str]]) -> str:
        return f"Types: deb\nURIs: {' '.join(entry[0])}\nSuites: {' '.join(entry[1])}\nComponents: main\n"

    def named(sources: str) -> set[tuple[str, str]]:
        found = set()
        for stanza in sources.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != "#")
            if fields and fields.get("Enabled") != "no":
                found |= {
                    (uri.rstrip("/"), suite) for uri in fields["URIs"].split() for suite in fields["Suites"].split()
                }
        return found

    before = "\n".join(text(entry) for entry in entries)
    assert named(off("x.sources", before)) == named(before) - {(URI, "jammy")}


@given(st.binary(max_size=300) | st.text(st.sampled_from("deb[]=#: \n\r\tURIs-"), max_size=80).map(str.encode))
def test_any_bytes(content: bytes) -> None:
    """A file that is none of apt's stays as it is."""
    assert disable("x.list", content, OURS, WHY) == content
    assert disable("x.sources", content, OURS, WHY) == content

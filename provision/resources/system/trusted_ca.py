"""An authority that the host's own programs trust.  Source: update-ca-certificates(8)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from provision.editing.diff import unified
from provision.errors import ProbeFailed
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.shell import Command, sh

_FOLDER = "/usr/local/share/ca-certificates"
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)

# A file of a run that was killed ends in .gone, or is not in the bundle yet: both tell that the work is not done.
_ASK = """
stem=%s bundle=%s
for file in "$stem".crt "$stem"-[0-9]*.crt "$stem"*.gone; do
  [ -e "$file" ] || continue
  printf 'file %%s\\n' "${file##*/}"; cat -- "$file"; echo
done
for line in %s; do grep -qsF -e "$line" -- "$bundle" || echo missing; done
"""
_PUT = """
set -e
command -v update-ca-certificates >/dev/null || { echo 'the package ca-certificates is not installed' >&2; exit 1; }
mkdir -p -- %s
cd -- %s
for old in %s; do mv -f -- "$old" "$old.gone"; done
set -- %s
while [ $# -gt 0 ]; do
  (umask 022; printf '%%s' "$2" > "$1.new"); sync -- "$1.new"; mv -f -- "$1.new" "$1"; shift 2
done
update-ca-certificates
rm -f -- %s
"""


@dataclass(frozen=True)
class TrustedCa(Resource):
    """The certificates of `pem`, and no others that once stood under this name, are in the host's trust.

    One certificate a file, as update-ca-certificates wants it. An empty `pem`: none is wanted any more.
    """

    name: str
    pem: bytes

    def probe(self) -> Probe:
        # A line of the signature stands for the whole certificate.
        lines = [max(one.splitlines()[-3:-1], key=len) for one in self._wanted().values()]
        return Probe.of(sh(_ASK, f"{_FOLDER}/{self._stem}", _BUNDLE, lines))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if seen.code != 0:
            raise ProbeFailed(
                f"{_BUNDLE} cannot be read: {seen.only.errors.strip()}",
                hint="apt-get install --reinstall ca-certificates",
            )
        there, missing = _read(seen.text)
        wanted = self._wanted()
        if there == wanted and not missing:
            return
        verb = "trust" if not there else "replace" if wanted else "trust no longer"
        diffs = [
            unified(f"{_FOLDER}/{name}", there.get(name, ""), wanted.get(name, ""))
            for name in sorted(there.keys() | wanted.keys())
        ]
        yield Change(
            f"{verb} the authority {self.name} on this host",
            _put(wanted, [name for name in there if name not in wanted]),
            "create" if not there else "update" if wanted else "delete",
            "\n".join(filter(None, diffs)),
            deadline=120,
        )

    @property
    def _stem(self) -> str:
        return f"provision-{self.name}"

    def _wanted(self) -> dict[str, str]:
        blocks = _PEM.findall(self.pem.decode("utf-8", "replace").replace("\r", ""))
        if len(blocks) == 1:
            return {f"{self._stem}.crt": f"{blocks[0]}\n"}
        return {f"{self._stem}-{number}.crt": f"{block}\n" for number, block in enumerate(blocks, 1)}


def _put(wanted: dict[str, str], unwanted: list[str]) -> Command:
    aside = [name for name in unwanted if not name.endswith(".gone")]
    gone = [f"{name.removesuffix('.gone')}.gone" for name in unwanted]
    return sh(_PUT, _FOLDER, _FOLDER, aside, [one for item in wanted.items() for one in item], gone)


def _read(text: str) -> tuple[dict[str, str], bool]:
    """The files that are there, and whether the bundle lacks one that is wanted."""
    found: dict[str, str] = {}
    for part in re.split(r"^(?=file )", text, flags=re.MULTILINE):
        head, _, content = part.partition("\n")
        if head.startswith("file "):
            found[head.removeprefix("file ")] = "\n".join([*_PEM.findall(content), ""])
    return found, bool(re.search(r"^missing$", text, re.MULTILINE))

"""Programs made of small shell scripts, in a folder that is first in PATH. Each call is recorded with its arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_HEAD: Final = """#!/bin/sh
printf '%s %s\\n' "$(basename "$0")" "$*" >> {calls}
"""
# A Docker whose containers are files: its line is STATE|APP|FINGERPRINT|DIGEST|IMAGE. `broken` images do not stay up.
_DOCKER: Final = """
top={top}
printf '%s\\n' "$DOCKER_CONFIG" > $top/login_folder
containers=$top/containers
# Fails if the file $1 exists, with the message in it, or with $2.
refuse() { [ ! -e "$top/$1" ] || { cat "$top/$1" | grep . >&2 || echo "$2" >&2; exit 1; }; }
field() { cut -d '|' -f "$1" "$containers/$name"; }
set_state() { sed -i "s/^[^|]*/$1/" "$containers/$name"; }
for name; do :; done  # most commands end with the container
case "$1 $2" in
  "container inspect")
    [ -e "$containers/$name" ] || exit 1
    case $4 in
      *State.Status*) echo "$(field 1) 0 1" ;;
      *State.Running*provision.settings*) [ "$(field 1)" = running ] && up=true || up=false; echo "$up $(field 3) $(field 4)" ;;
      *State.Running*) [ "$(field 1)" = running ] && echo true || echo false ;;
      *provision.app*) field 2 ;;
    esac ;;
  "image inspect") case $name in \\[*) [ ! -e "$top/old" ] || {{ echo "Error: no such image: invalid reference format" >&2; exit 1; }} ;; esac
    [ -e "$top/images" ] && cat "$top/images" || { echo "Error: No such image: $name" >&2; exit 1; } ;;
  "image rm") ;;
  "login "*) cat > "$top/password"; refuse refused 'Error: unauthorized' ;;
  "logout "*) ;;
  "pull "*) refuse gone 'Error: manifest unknown'; echo "Digest: sha256:new" ;;
  "push "*) echo "pushing $name"; refuse unwritable 'Error: denied' ;;
  "build "*) cat > "$top/context"; echo "$BUILDX_NO_DEFAULT_ATTESTATIONS" > "$top/no_attestations"; echo 'step 1'; [ ! -e "$top/unbuildable" ] || { cat "$top/unbuildable" >&2; exit 1; } ;;
  "import "*) cat > /dev/null ;;
  "create "*)
    while [ "$1" != --env-file ]; do
      case $1 in
        --name) name=$2 ;;
        --label) case $2 in *.app=*) app=${{2#*=}} ;; *.settings=*) print=${{2#*=}} ;; *) digest=${{2#*=}} ;; esac ;;
      esac
      shift
    done
    cp "$2" "$top/env"; shift 2
    echo "created|$app|$print|$digest|$*" > "$containers/$name" ;;
  "start "*) if grep -q broken "$containers/$name"; then set_state exited; else set_state running; fi ;;
  "stop "*) set_state exited ;;
  "rm "*) rm -f "$containers/$name" ;;
  "rename "*) mv "$containers/$2" "$containers/$3" ;;
  "exec "*) [ ! -e "$top/ill" ] || { echo 'not ready'; exit 1; } ;;
  "logs "*) echo 'log line' ;;
  "version "*) echo 20.10.24 ;;
  "ps "*) cat "$top/ps" 2>/dev/null || : ;;
esac
"""


class Programs:
    """Fake programs below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        self._calls = folder / "calls"
        self._calls.touch()
        self.path = f"{folder}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    def add(self, name: str, script: str = "") -> None:
        """Makes a program of a shell script."""
        program = self.folder / "bin" / name
        program.write_text(f"{_HEAD.format(calls=self._calls)}{script}\n")
        program.chmod(0o755)

    def calls(self, name: str = "") -> list[str]:
        """The calls in order, `PROGRAM ARGUMENTS` each; those of one program, or all."""
        return [line for line in self._calls.read_text().splitlines() if line.startswith(f"{name} " if name else "")]


class Docker(Programs):
    """A host with a Docker whose containers are files."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.containers = folder / "containers"
        self.containers.mkdir()
        self.add("docker", _DOCKER.replace("{top}", str(folder)).replace("{{", "{").replace("}}", "}"))

    def run(self, name: str, app: str = "", fingerprint: str = "old", state: str = "running") -> None:
        """Adds a container of the image `image:old`."""
        (self.containers / name).write_text(f"{state}|{app}|{fingerprint}|sha256:old|image:old\n")

    def found(self) -> dict[str, str]:
        """The containers by name: state and image with command."""
        lines = {path.name: path.read_text().strip().split("|") for path in sorted(self.containers.iterdir())}
        return {name: f"{fields[0]} {fields[4]}" for name, fields in lines.items()}

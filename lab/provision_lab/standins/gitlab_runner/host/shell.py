"""The scripts of a job as its containers' shells read them. Sources: gitlab-runner's shells/bash.go and abstract.go."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from .trace import GREEN, RESET

DETECT: Final = (
    "for one in /usr/local/bin/bash /usr/bin/bash /bin/bash /usr/local/bin/sh /usr/bin/sh /bin/sh /busybox/sh; do "
    'if [ -x "$one" ]; then exec "$one"; fi; done; echo shell not found; exit 1'
)
"""Starts the first shell that an image has. Source: BashDetectShellScript."""


def script_of(directory: str, values: Mapping[str, Mapping[str, Any]], lines: Iterable[str]) -> str:
    """The whole script: variables, then every command after a line that shows it. Source: BashWriter.Finish."""
    parts, files = [], f"{directory}.tmp"
    for one in values.values():
        key, value = one["key"], shlex.quote(one["value"])
        if one["file"]:
            path = shlex.quote(f"{files}/{key}")
            parts += [f"mkdir -p {shlex.quote(files)}", f"printf '%s' {value} > {path}", f"export {key}={path}"]
        else:
            parts.append(f"export {key}={value}")
    parts.append(f"cd {shlex.quote(directory)}")
    for line in lines:
        command = line.strip()
        first, _, more = command.partition("\n")
        parts += [shown(f"$ {first} # collapsed multi-line command" if more else f"$ {command}"), command]
    pipes = 'case "$(set -o)" in *pipefail*) set -o pipefail;; esac; set -o errexit'
    body = shlex.quote("\n".join(parts) + "\n")
    return f"trap 'exit 1' TERM\n{pipes}\nset +o noclobber\n(trap 'exit 1' TERM; eval {body}) < /dev/null\nexit 0\n"


_REFERENCE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def expand(text: str, values: Mapping[str, str]) -> str:
    """A text with variables in it; unknown ones are empty, as in a shell. Source: spec.Variables.ExpandValue."""
    return _REFERENCE.sub(lambda found: values.get(found[1] or found[2], ""), text)


def shown(text: str) -> str:
    """The command that shows a text as the runner's own scripts do."""
    return f"echo {shlex.quote(f'{GREEN}{text}{RESET}')}"


def lines_of(steps: Iterable[Mapping[str, Any]], name: str) -> Iterator[str]:
    """The lines of a step."""
    for one in steps:
        if one["name"] == name:
            yield from one["script"]

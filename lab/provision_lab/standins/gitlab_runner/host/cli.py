"""The program's commands."""

from __future__ import annotations

import sys

from . import commands, logs, register, service, version
from .daemon import run as run_daemon

_QUIET = ("--version", "-v", "help", "--help", "-h")
_SERVICE = ("install", "uninstall", "start", "stop", "restart", "status")
_COMMANDS = {
    "register": register.run,
    "verify": commands.verify,
    "unregister": commands.unregister,
    "list": commands.list_runners,
    "lint": commands.lint,
    "run": run_daemon,
}
_HELP = """\
NAME:
   gitlab-runner - a GitLab Runner

USAGE:
   gitlab-runner [global options] command [command options] [arguments...]

COMMANDS:
"""


def main() -> None:
    """Runs the command of sys.argv; exit code 0 or 1."""
    words = sys.argv[1:]
    known = [name for name in (*_COMMANDS, *_SERVICE) if name != "lint" or version.at_least(19, 3)]
    if not words or words[0] in _QUIET:
        if words and words[0] in ("--version", "-v"):
            sys.stdout.write(version.text())
        else:
            sys.stdout.write(_HELP + "".join(f"   {name}\n" for name in sorted(known)))
        return
    verb = words[0]
    try:
        logs.banner()
        if verb not in known:
            logs.fatal(f"Command {verb} not found.")
        if {"--help", "-h"} & set(words[1:2]):
            sys.stdout.write(f"NAME:\n   gitlab-runner {verb}\n\nUSAGE:\n   gitlab-runner {verb} [command options]\n")
            return
        if verb in _SERVICE:
            service.run(verb, words[1:])
        else:
            _COMMANDS[verb](words[1:])
    except logs.Exit as end:
        logs.last(end)

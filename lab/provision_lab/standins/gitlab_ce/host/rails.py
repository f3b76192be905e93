"""`gitlab-rails runner`: evaluates Ruby with those of GitLab's models that scripts of administrators use.

Ruby gets the database, works on a copy and gives each committed transaction back (rb/rails.rb). It runs as `git`, as the real
one does. Sources: omnibus-gitlab's bundle_exec_wrapper.erb; railties' runner_command.rb.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path

from .api.store import Store, ensure_first_user
from .layout import Paths, linger, program_path

_LIBRARY = Path(__file__).parent.parent
_USAGE = "Usage:\n  bin/rails runner [options] ['Some.ruby(code)' | path/to/filename.rb | -]\n"


def main(arguments: list[str], paths: Paths | None = None) -> int:
    """`runner CODE`: CODE is Ruby, a file, or `-` for standard input. Returns the exit code."""
    paths = paths or Paths()
    if not paths.rails_rc.exists():
        print(f"gitlab-rails error: could not load {paths.rails_rc}")
        print("Either you are not allowed to read the file, or it does not exist yet.")
        print("You can generate it with:   sudo gitlab-ctl reconfigure")
        return 1
    if len(arguments) < 2 or arguments[0] not in ("runner", "r"):
        print(_USAGE)
        return 1
    linger(paths.switches, "rails-runner-seconds")
    program = sys.stdin.read() if arguments[1] == "-" else arguments[1]
    if arguments[1] != "-" and Path(program).exists():
        program = Path(program).read_text()
    switches = paths.switches / "settings.json"
    settings = json.loads(switches.read_text()) if switches.exists() else {}
    store = Store(paths.database)
    with store:
        ensure_first_user(store, paths)
        known = {"settings": settings, "users": store.all("users"), "tokens": store.all("tokens")}
        code, commits = _evaluate(program, known)
        for commit in commits:
            for table in ("users", "tokens"):
                store.all(table)[:] = [one for one in commit[table] if "id" in one]
                for one in commit[table]:
                    if "id" not in one:
                        store.add(table, one)
            store.changed()
    linger(paths.switches, "rails-runner-exit-seconds")
    return code


def _evaluate(program: str, known: dict[str, object]) -> tuple[int, list[dict[str, list[dict[str, object]]]]]:
    """The exit code, and the last committed state of the tables; nothing where nothing was committed."""
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as out:
        json.dump(known, given)
        given.flush()
        given.seek(0)
        done = subprocess.run(
            ["ruby", str(_LIBRARY / "rb/rails.rb"), str(given.fileno()), str(out.fileno())],
            input=program,
            text=True,
            pass_fds=(given.fileno(), out.fileno()),
            user=_git(),
            check=False,
            env={"PATH": program_path(), "LANG": "C.UTF-8"},
        )
        out.seek(0)
        lines = out.read().splitlines()
    return done.returncode, [json.loads(lines[-1])] if lines else []


def _git() -> str | None:
    """The user that Rails runs as; None if this is not root."""
    try:
        return pwd.getpwnam("git").pw_name if os.geteuid() == 0 else None
    except KeyError:
        return None

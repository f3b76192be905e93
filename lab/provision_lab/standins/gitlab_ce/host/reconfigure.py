"""`gitlab-ctl reconfigure`: applies gitlab.rb to files and services, with the output of the real one's engine."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import system
from .layout import Paths, consume, installed, linger, parse_version
from .output import START, Output
from .services import SERVICES, disable, enable, read, systemctl, unit
from .settings import ConfigurationError, EvaluationError, Wanted, deprecations, derive, evaluate, removals


class ReconfigureError(Exception):
    """The run fails: its message, and lines of detail below it."""

    def __init__(self, message: str, details: list[str] | None = None) -> None:
        super().__init__(message)
        self.details = details or []


@contextmanager
def one_at_a_time(lock: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock. Waits without a limit for another run, and writes that into the log only, as the real one does."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another"
            log(f"Cinc Client {holder} is running, will wait for it to finish and then run.")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def reconfigure(paths: Paths) -> int:
    """Runs it; exit code 0, or 1 after printing the reason."""
    with Output(paths.reconfigure_logs) as out, one_at_a_time(paths.lock, out.log):
        out.line(START.rstrip("\n"))
        linger(paths.switches)
        try:
            notices = _converge(paths, out)
        except (ReconfigureError, EvaluationError, ConfigurationError, OSError) as error:
            if isinstance(error, EvaluationError):
                _compile_error(out, paths.gitlab_rb, error)
            out.end(failed=True)
            out.fail(str(error), getattr(error, "details", None))
            return 1
        out.end(failed=False)
        if notices:
            out.line("\nDeprecations:")
            for notice in notices:
                out.line(notice)
            out.line("")
        out.line("gitlab Reconfigured!")
    return 0


def _converge(paths: Paths, out: Output) -> list[str]:
    version = parse_version(installed(paths.opt))
    settings = evaluate(paths.gitlab_rb)
    gone = list(removals(settings, version))
    if gone:
        raise ReconfigureError("Removed configurations found in gitlab.rb. Aborting reconfigure.", gone)
    wanted = derive(settings, version)
    early = consume(paths.switches, "fail-next-reconfigure")
    if early:
        raise ReconfigureError(early)
    out.line("Converging resources")
    out.line("Recipe: gitlab::default")
    _letsencrypt(wanted)
    changed = system.write_files(paths, wanted, version, out)
    _run_services(paths, wanted, changed, out)
    late = consume(paths.switches, "fail-next-reconfigure-late")
    if late:
        raise ReconfigureError(late)
    return list(deprecations(settings, version))


def _letsencrypt(wanted: Wanted) -> None:
    """Fails where the real package would request a certificate: there is no ACME server here."""
    site = wanted.external
    if not site.https or wanted.letsencrypt is False or not wanted.front_end:
        return
    if wanted.letsencrypt is None and Path(site.certificate).exists() and Path(site.key).exists():
        return
    raise ReconfigureError(
        f"letsencrypt_certificate[{site.host}] (letsencrypt::http_authorization line 6) had an error: "
        f"RuntimeError: acme_certificate[staging] (letsencrypt::http_authorization line 43) had an error: "
        f"RuntimeError: ruby_block[create certificate for {site.host}] had an error: "
        f"RuntimeError: [{site.host}] Validation failed, unable to request certificate"
    )


def _run_services(paths: Paths, wanted: Wanted, changed: set[str], out: Output) -> None:
    running = {"puma": True, "nginx": wanted.front_end, "registry": wanted.registry is not None}
    systemctl("daemon-reload") if changed else None
    systemctl("enable", "--now", "gitlab-runsvdir.service")
    for name in SERVICES:
        if not running[name]:
            out.resource(f"runit_service[{name}]", "disable", disable(paths.opt, name))
            continue
        new = enable(paths.opt, name)
        out.resource(f"runit_service[{name}]", "enable", new)
        if name in changed and not new:
            systemctl("restart", unit(name))
            out.resource(f"runit_service[{name}]", "restart", True)
        elif not read(name).up:
            systemctl("start", unit(name))


def _compile_error(out: Output, path: Path, error: EvaluationError) -> None:
    """Prints what the engine prints when the file cannot be evaluated."""
    out.line("=" * 80)
    out.line(f"Recipe Compile Error in {path}")
    out.line("=" * 80)
    out.line(f"{error.kind}\n{'-' * len(error.kind)}\n{error}")
    if error.line:
        out.line(f"\nRelevant File Content:\n----------------------\n{path}:{error.line}")


def show_config(paths: Paths) -> int:
    """`gitlab-ctl show-config`: evaluates and derives, changes nothing. It does not check for removed settings.

    It is a run of the engine as well: it takes the lock, and waits for it without a limit.
    """
    with one_at_a_time(paths.lock, lambda _: None):
        return _show_config(paths)


def _show_config(paths: Paths) -> int:
    print(START, end="", flush=True)
    try:
        settings = evaluate(paths.gitlab_rb)
        derive(settings, parse_version(installed(paths.opt)))
    except (EvaluationError, ConfigurationError, OSError) as error:
        print("\nRunning handlers:", flush=True)
        print(f"There was an error running gitlab-ctl reconfigure:\n\n{error}\n", file=sys.stderr)
        return 1
    print(json.dumps(settings, indent=2))
    print("Converging 0 resources\n\nRunning handlers:\nRunning handlers complete")
    print("Infra Phase complete, 0/0 resources updated in 01 seconds")
    return 0

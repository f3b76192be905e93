"""`gitlab-ctl reconfigure`: applies gitlab.rb to files and services, with the output of the real one's engine."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from . import letsencrypt, system
from .layout import Paths, consume, duration, installed, linger, parse_version, write_atomically
from .output import START, Output
from .removed import deprecations, removals
from .services import SERVICES, disable, enable, enabled, hup, read, read_all, systemctl, unit
from .settings import (
    ConfigurationError,
    EvaluationError,
    Wanted,
    derive,
    evaluate,
    locale_warnings,
    moved_nginx,
    renews,
)


class ReconfigureError(Exception):
    """The run fails."""


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
        linger(paths.switches, "reconfigure-seconds")
        try:
            _converge(paths, out)
        except (ReconfigureError, EvaluationError, ConfigurationError, OSError) as error:
            if isinstance(error, EvaluationError):
                _compile_error(out, paths.gitlab_rb, error)
            out.fail(str(error))
            return 1
        out.end()
        out.line("gitlab Reconfigured!")
    return 0


def _converge(paths: Paths, out: Output) -> None:
    """Source of the order: omnibus-gitlab, package/recipes/default.rb, then gitlab/recipes/default.rb."""
    version = parse_version(installed(paths.opt))
    settings = evaluate(paths.gitlab_rb)
    out.add("deprecation", moved_nginx(settings, version))
    wanted = derive(settings, version)
    gone = list(removals(settings, version))
    if gone:
        out.add("removal", gone)
        raise ReconfigureError("Removed configurations found in gitlab.rb. Aborting reconfigure.")
    out.add("deprecation", deprecations(settings, version))
    out.add("warning", locale_warnings(os.environ))
    early = consume(paths.switches, "fail-next-reconfigure")
    if early:
        raise ReconfigureError(early)
    out.line("Converging 322 resources")
    out.line("Recipe: gitlab::default")
    wanted = _with_letsencrypt(paths, wanted)
    out.add("note", filter(None, (system.set_root_password(paths, wanted), system.clean_root_password(paths))))
    changed = system.write_files(paths, wanted, version, out)
    write_atomically(paths.node, json.dumps({"normal": _without_texts(settings)}, indent=1) + "\n", 0o600)
    _run_services(paths, wanted, changed, out)
    if _letsencrypt(paths, wanted):
        hup([name for name in enabled(paths.opt) if name == "nginx"])
    late = consume(paths.switches, "fail-next-reconfigure-late")
    if late:
        raise ReconfigureError(late)


def _without_texts(settings: object) -> object:
    """The settings with "…" for each text, which may be a secret: check-config needs names and booleans."""
    if isinstance(settings, dict):
        return {key: _without_texts(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [_without_texts(one) for one in settings]
    return "…" if isinstance(settings, str) else settings


def _with_letsencrypt(paths: Paths, wanted: Wanted) -> Wanted:
    """The same with a certificate that lets nginx start and a redirect from port 80, where the integration is on."""
    site = wanted.external
    if not (
        site.https and wanted.front_end and letsencrypt.is_wanted(wanted.letsencrypt, paths, site.certificate, site.key)
    ):
        return wanted
    letsencrypt.make_self_signed(site.host, site.certificate, site.key)
    services = (
        wanted.services if "crond" in wanted.services or not renews(wanted.letsencrypt) else (*wanted.services, "crond")
    )
    site = replace(site, redirect_port=site.redirect_port or 80)
    return replace(wanted, external=site, letsencrypt_enabled=True, services=services)


def renew(paths: Paths) -> int:
    """`gitlab-ctl renew-le-certs`, which a timer of GitLab's calls: the certificate alone."""
    with Output(paths.reconfigure_logs) as out, one_at_a_time(paths.lock, out.log):
        wanted = _with_letsencrypt(paths, derive(evaluate(paths.gitlab_rb), parse_version(installed(paths.opt))))
        try:
            if _letsencrypt(paths, wanted):
                hup([name for name in enabled(paths.opt) if name == "nginx"])
        except ReconfigureError as error:
            out.fail(str(error))
            return 1
    return 0


def _letsencrypt(paths: Paths, wanted: Wanted) -> bool:
    """Requests the certificate, if GitLab's own integration is on; whether nginx must read a new one."""
    if not wanted.letsencrypt_enabled:
        return False
    site = wanted.external
    try:
        return letsencrypt.obtain(wanted.letsencrypt, paths, site.host, site.certificate, site.key)
    except letsencrypt.Refused as error:
        raise ReconfigureError(str(error)) from error


def _run_services(paths: Paths, wanted: Wanted, changed: set[str], out: Output) -> None:
    running = {"puma": True, "nginx": wanted.front_end, "registry": wanted.registry is not None}
    systemctl("daemon-reload") if changed else None
    systemctl("enable", "--now", "gitlab-runsvdir.service")
    for name in [one for one in enabled(paths.opt) if one not in (*SERVICES, *wanted.services)]:
        out.resource(f"runit_service[{name}]", "disable", disable(paths.opt, name))
    for name in wanted.services:
        out.resource(f"runit_service[{name}]", "enable", enable(paths.opt, name))
    down = [state.name for state in read_all(wanted.services) if not state.up]
    systemctl("start", *map(unit, down)) if down else None
    for name in SERVICES:
        if not running[name]:
            out.resource(f"runit_service[{name}]", "disable", disable(paths.opt, name))
            continue
        new = enable(paths.opt, name)
        out.resource(f"runit_service[{name}]", "enable", new)
        if name in changed and not new:
            systemctl("reset-failed", unit(name))
            systemctl("restart", unit(name))
            out.resource(f"runit_service[{name}]", "restart", True)
        elif not read(name).up:
            systemctl("start", unit(name))
        if name == "registry" and wanted.registry:
            _wait_for_registry(paths, wanted.registry.address, "start" if new else "restart")


def _wait_for_registry(paths: Paths, address: str, command: str) -> None:
    """Fails when the registry does not start within runit's time: then the reconfigure itself fails.

    Source: omnibus-gitlab, runit/libraries/helpers.rb, restart_service; SVWAIT in gitlab.rb.template. A registry that
    ends is started again every second, as by runit.
    """
    ends = time.monotonic() + duration(paths.switches, "sv-wait-seconds", 5)
    while not _listens(address):
        if time.monotonic() > ends:
            shell = f"/opt/gitlab/embedded/bin/sv {command} /opt/gitlab/service/registry"
            state = read("registry")
            line = replace(state, up=False, wanted=True).line(1, max(state.seconds, 1))
            raise ReconfigureError(
                "runit_service[registry] (registry::enable line 87) had an error: Mixlib::ShellOut::ShellCommandFailed: "
                f"Expected process to exit with [0], but received '1'\n---- Begin output of {shell} ----\n"
                f"STDOUT: timeout: {line}\nSTDERR: \n---- End output of {shell} ----\nRan {shell} returned 1"
            )
        time.sleep(0.1)


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]") or "127.0.0.1", int(port)), timeout=1).close()
    except OSError:
        return False
    return True


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

    It is a run of the engine as well, without the engine's own output: it takes the lock, and waits for it without a limit.
    Sources: omnibus-ctl, `-l fatal -F null`; omnibus-gitlab, package/recipes/show_config.rb, solo.rb.
    """
    with one_at_a_time(paths.lock, lambda _: None):
        return _show_config(paths)


def _show_config(paths: Paths) -> int:
    version = parse_version(installed(paths.opt))
    notices: list[str] = []
    try:
        settings = evaluate(paths.gitlab_rb)
        notices = list(moved_nginx(settings, version))
        derive(settings, version)
    except (EvaluationError, ConfigurationError, OSError) as error:
        print(f"There was an error running gitlab-ctl reconfigure:\n\n{error}\n", file=sys.stderr)
        if notices:
            print("\nDeprecations:\n" + "\n".join(notices))
        return 1
    print(json.dumps(settings, indent=2))
    return 0

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
from typing import Any

from . import letsencrypt, system
from .layout import Paths, consume, duration, installed, linger, parse_version, write_atomically
from .output import START, Output
from .removed import deprecations, removals
from .services import SERVICES, SUPERVISOR, disable, enable, enabled, hup, read, read_all, systemctl, unit
from .settings import (
    ConfigurationError,
    EvaluationError,
    Wanted,
    derive,
    evaluate,
    locale_warnings,
    metadata_warnings,
    moved_nginx,
    renews,
)

SV_WAIT = 30  # seconds that runit waits


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
    out.add("warning", (*locale_warnings(os.environ), *metadata_warnings(wanted)))
    early = consume(paths.switches, "fail-next-reconfigure")
    if early:
        raise ReconfigureError(early)
    out.line("Converging 322 resources")
    out.line("Recipe: gitlab::default")
    wanted = _with_letsencrypt(paths, wanted)
    out.add("note", filter(None, (system.set_root_password(paths, wanted), system.clean_root_password(paths))))
    changed = system.write_files(paths, wanted, version, out)
    node = _without_texts(settings)
    node["letsencrypt"] = {**node.get("letsencrypt", {}), "enable": wanted.letsencrypt_enabled}
    write_atomically(paths.node, json.dumps({"normal": node}, indent=1) + "\n", 0o600)
    _run_services(paths, wanted, changed, out)
    _letsencrypt(paths, wanted, out)
    late = consume(paths.switches, "fail-next-reconfigure-late")
    if late:
        raise ReconfigureError(late)


def _without_texts(settings: Any) -> Any:
    """The settings with "…" for each text, which may be a secret: check-config needs names and booleans."""
    if isinstance(settings, dict):
        return {key: _without_texts(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [_without_texts(one) for one in settings]
    return "…" if isinstance(settings, str) else settings


def _with_letsencrypt(paths: Paths, wanted: Wanted) -> Wanted:
    """The same with a certificate that lets nginx start and a redirect from port 80, where the integration is on.

    The registry without a certificate of its own is named in GitLab's, and serves it.
    Source: omnibus-gitlab, letsencrypt/libraries/helper.rb, add_service_alt_name.
    """
    site = wanted.external
    if not (
        site.https and wanted.front_end and letsencrypt.is_wanted(wanted.letsencrypt, paths, site.certificate, site.key)
    ):
        return wanted
    letsencrypt.make_self_signed(site.host, site.certificate, site.key)
    table, registry = wanted.letsencrypt, wanted.registry
    if registry and registry.site and registry.site.https and not Path(registry.site.certificate).exists():
        table = {**table, "alt_names": [*(table.get("alt_names") or []), registry.site.host]}
        shared = replace(registry.site, certificate=site.certificate, key=site.key)
        registry = replace(registry, site=replace(shared, redirect_port=shared.redirect_port or 80))
    crond = () if "crond" in wanted.services or not renews(table) else ("crond",)
    return replace(
        wanted,
        external=replace(site, redirect_port=site.redirect_port or 80),
        registry=registry,
        letsencrypt=table,
        services=(*wanted.services, *crond),
        letsencrypt_enabled=True,
    )


def renew(paths: Paths) -> int:
    """`gitlab-ctl renew-le-certs`, which crond calls: a run of the engine for the certificate alone.

    A failure is printed, and is no failure of the command. Sources: omnibus-gitlab, files/gitlab-ctl-commands/letsencrypt.rb,
    gitlab/recipes/letsencrypt_renew.rb; omnibus-ctl, run.
    """
    node = json.loads(paths.node.read_text())["normal"] if paths.node.exists() else {}
    if not node.get("letsencrypt", {}).get("enable"):
        text = 'LetsEncrypt is not enabled in your gitlab.rb. Have you run "gitlab-ctl reconfigure" yet?'
        print(text, file=sys.stderr)
        return 1
    with Output(paths.logs / "lets-encrypt", "renewal.") as out, one_at_a_time(paths.lock, out.log):
        out.line(START.rstrip("\n"))
        try:
            wanted = derive(evaluate(paths.gitlab_rb), parse_version(installed(paths.opt)))
            _letsencrypt(paths, _with_letsencrypt(paths, wanted), out)
        except (ReconfigureError, EvaluationError, ConfigurationError, OSError) as error:
            out.line(str(error))
            print("There was an error renewing Let's Encrypt certificates, please checkout the output", file=sys.stderr)
            return 0
        out.end()
    return 0


def _letsencrypt(paths: Paths, wanted: Wanted, out: Output) -> None:
    """Requests the certificate, if GitLab's own integration is on, has nginx read a new one, and sets crond's job."""
    site = wanted.external
    job = letsencrypt.renewal(wanted.letsencrypt, site.host) if wanted.letsencrypt_enabled else None
    if wanted.letsencrypt_enabled:
        try:
            new = letsencrypt.obtain(wanted.letsencrypt, paths, site.host, site.certificate, site.key)
        except letsencrypt.Refused as error:
            raise ReconfigureError(str(error)) from error
        if new:
            hup([name for name in enabled(paths.opt) if name == "nginx"])
            out.add("warning", () if job else ["Let's Encrypt integration does not setup any automatic renewal."])
    if job is None:
        changed = paths.renewal_job.exists()
        paths.renewal_job.unlink(missing_ok=True)
    else:
        changed = write_atomically(paths.renewal_job, job)
    out.resource(f"crond_job[letsencrypt-renew] file[{paths.renewal_job}]", "create" if job else "delete", changed)
    if changed and job:
        systemctl("restart", unit("crond"))


def _run_services(paths: Paths, wanted: Wanted, changed: set[str], out: Output) -> None:
    running = {"puma": True, "nginx": wanted.front_end, "registry": wanted.registry is not None}
    # The package's scripts reload systemd for its unit files, and no reconfigure changes these. Enabling reloads it too.
    if (
        systemctl("is-enabled", "--quiet", SUPERVISOR).returncode
        or systemctl("is-active", "--quiet", SUPERVISOR).returncode
    ):
        systemctl("enable", "--now", SUPERVISOR)
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
    ends is started again every second, as by runit. One that is only slow gets the real time.
    """
    ends = time.monotonic() + duration(paths.switches, "sv-wait-seconds", 5)
    latest = max(ends, time.monotonic() + SV_WAIT) if read("registry").up else ends
    before = read("registry").restarts
    while not _listens(address):
        now = time.monotonic()
        if now > latest or (now > ends and read("registry").restarts > before):
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

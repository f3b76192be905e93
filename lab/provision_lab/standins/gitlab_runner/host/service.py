"""install, uninstall, start, stop, restart, status: systemd's unit of the runner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from . import config, logs
from .flags import parse
from .schema import Flag

_UNITS = Path("/etc/systemd/system")
_FLAGS = [
    Flag(("--service", "-n"), "", "text", ""),
    Flag(("--config", "-c"), "CONFIG_FILE", "text", ""),
    Flag(("--working-directory", "-d"), "", "text", ""),
    Flag(("--user", "-u"), "", "text", ""),
    Flag(("--syslog",), "LOG_SYSLOG", "flag", ""),
]
_UNIT = """\
[Unit]
Description=GitLab Runner
ConditionFileIsExecutable=/usr/bin/gitlab-runner
After=network.target

[Service]
StartLimitInterval=5
StartLimitBurst=10
ExecStart=/usr/bin/gitlab-runner "run" "--config" "{config}" "--working-directory" "{directory}" \
"--service" "{name}" "--user" "{user}"
Restart=always
RestartSec=120
EnvironmentFile=-/etc/sysconfig/{name}

[Install]
WantedBy=multi-user.target
"""


def run(verb: str, words: list[str]) -> None:
    """One of the verbs; `status` ends with 0 only while the service runs."""
    given = parse(words, _FLAGS)
    name = given.text("service") or "gitlab-runner"
    unit = _UNITS / f"{name}.service"
    if verb == "install":
        if unit.exists():
            logs.fatal(f"Failed to install {name}: Init already exists: {unit}")
        text = _UNIT.format(
            name=name,
            config=given.text("config") or config.default_path(),
            directory=given.text("working-directory") or "/home/gitlab-runner",
            user=given.text("user") or "gitlab-runner",
        )
        unit.write_text(text)
        _systemctl("daemon-reload")
        _systemctl("enable", unit.name)
        return
    if not unit.exists():
        sys.stdout.write(f"{name}: the service is not installed\n")
        raise SystemExit(1)
    if verb == "status":
        running = _systemctl("is-active", "--quiet", unit.name)
        sys.stdout.write(f"{name}: Service {'is running' if running else 'has stopped'}\n")
        raise SystemExit(0 if running else 1)
    if verb == "uninstall":
        _systemctl("disable", unit.name)
        unit.unlink()
        _systemctl("daemon-reload")
    elif not _systemctl(verb, unit.name):
        logs.fatal(f"Failed to {verb} {name}: exit status 1")


def _systemctl(*words: str) -> bool:
    done = subprocess.run(["systemctl", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0

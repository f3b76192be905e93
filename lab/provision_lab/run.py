"""Runs programs of this machine with a deadline, and checks that this machine can have a lab."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from provision.errors import ProvisionError, UsageError

TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "nft": "nftables",
    "mount": "mount",
    "nsenter": "util-linux",
    "dpkg-deb": "dpkg",
    "zstd": "zstd",
    "gpg": "gnupg",
    "ssh-keygen": "openssh-client",
}  # program: Debian's package of it


class LabError(ProvisionError):
    """Bringing up, using or taking down a lab failed."""


class LabUnavailable(LabError, UsageError):
    """This machine cannot have a lab: no root, no Linux, no network, or a program is missing."""


def run(
    *argv: str | Path, stdin: str = "", deadline: float = 60, check: bool = True, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end. Raises LabError when it fails (with `check`) or takes longer than `deadline` seconds."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words, input=stdin, capture_output=True, text=True, timeout=deadline, env=env, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{words[0]} did not end within {deadline:g} s: {' '.join(words)}") from error
    except FileNotFoundError as error:
        raise LabUnavailable(f"{words[0]} is not installed", hint=_install([words[0]])) from error
    if check and done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise LabError(f"`{' '.join(words)}` failed with exit code {done.returncode}:\n{tail}")
    return done


def require(*, build: bool) -> None:
    """Raises LabUnavailable unless this machine can have a lab. `build`: a base image has to be built too."""
    if sys.platform != "linux":
        raise LabUnavailable("a lab needs Linux (systemd-nspawn, overlayfs)", hint="run it in a Linux virtual machine")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None and (build or tool != "mmdebstrap")]
    if os.geteuid() != 0:
        raise LabUnavailable("a lab needs root, to mount file systems and boot hosts", hint="run it with sudo")
    if missing:
        raise LabUnavailable(f"a lab needs {', '.join(missing)}", hint=_install(missing))


def _install(programs: list[str]) -> str:
    return "apt-get install " + " ".join(sorted({TOOLS.get(program, program) for program in programs}))


def hand_to_caller(path: Path) -> None:
    """Gives a file to the user who called sudo, so that `provision` can read it without root."""
    uid, gid = os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")
    if uid and gid:
        os.chown(path, int(uid), int(gid))


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, at every moment."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
    hand_to_caller(path)

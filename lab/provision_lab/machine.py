"""One host: an overlay over the base image, booted by systemd-nspawn and connected to the bridge."""

from __future__ import annotations

import os
import shlex
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from provision.url import bracketed
from provision_lab import kernel, network, processes
from provision_lab.cache import remove, unmount
from provision_lab.hosts import LabHost
from provision_lab.run import LabError, run

_BOOT = 120  # seconds until sshd has to answer; a busy machine may boot twenty hosts at once
_INTERVAL = 0.05  # seconds between two checks
# Makes the mounts writable that systemd-nspawn has mounted read-only. The shell's own commands save 50 ms of processor time.
WRITABLE = """\
points=$(while read -r _ point _ options _; do
  case $point in /sys/fs/cgroup/*/*) ;; /sys/fs/cgroup | /sys/fs/cgroup/* | /proc/sys)
    case $options in ro | ro,*) echo "$point" ;; esac ;;
  esac
done < /proc/self/mounts)
for point in $points; do mount -o remount,rw,bind "$point"; done
"""


@dataclass(frozen=True)
class Machine:
    """A host as this machine runs it: `folder` holds disk/ (its writes, Docker's files), root/ (its tree) and console.log."""

    lab: str
    host: LabHost
    folder: Path

    @property
    def root(self) -> Path:
        """The host's file tree, seen from outside."""
        return self.folder / "root"

    @property
    def name(self) -> str:
        """Its name for systemd-nspawn."""
        return machine_name(self.lab, self.host.name)

    @property
    def console(self) -> Path:
        """The file with the output of its console."""
        return self.folder / "console.log"

    @property
    def cgroup(self) -> str:
        """The cgroup of all of the lab's hosts, where this machine has no systemd."""
        return f"provision-{self.lab}"

    @property
    def leader(self) -> int | None:
        """The id of its process 1 on this machine, for nsenter; None when the host does not run."""
        nspawn = processes.nspawn_of(self.root)
        return nspawn and processes.leader_of(nspawn)

    def mount(self, *layers: Path) -> None:
        """Mounts the tree: the base image as the last layer, the host's own files above all of them."""
        disk = self.folder / "disk"
        for folder in (disk, self.root):
            folder.mkdir(parents=True)
        if self.host.disk_mb:
            run("mount", "-t", "tmpfs", "-o", f"size={self.host.disk_mb}m", "provision-lab", disk)
        for name in ("upper", "work", "docker", "containerd"):
            (disk / name).mkdir()
        options = f"lowerdir={':'.join(map(str, layers))},upperdir={disk}/upper,workdir={disk}/work"
        # volatile: no fsync reaches the disk. The tree is temporary, and dpkg is many times faster.
        if run("mount", "-t", "overlay", "-o", f"{options},volatile", "overlay", self.root, check=False).returncode:
            run("mount", "-t", "overlay", "-o", options, "overlay", self.root)

    def boot(self, bridge: str) -> None:
        """Starts the host and returns at once."""
        argv = [
            "systemd-nspawn",
            "--quiet",
            f"--directory={self.root}",
            f"--machine={self.name}",
        ]
        argv += ["--register=no", "--boot", "--kill-signal=SIGKILL", f"--hostname={self.host.name}"]
        argv += [f"--network-bridge={bridge}", "--private-users=no", "--capability=all"]
        argv += ["--system-call-filter=@keyring bpf", "--resolv-conf=off", "--timezone=off", "--link-journal=no"]
        # Docker's layers need a file system that is not an overlay.
        argv += [f"--bind={self.folder}/disk/{name}:/var/lib/{name}" for name in ("docker", "containerd")]
        if not Path("/run/systemd/system").is_dir():  # this machine has no systemd to create a scope
            argv.append("--keep-unit")
            joined = " ".join(
                f"echo $$ > {shlex.quote(str(file))};" for file in kernel.make_cgroup(f"{self.cgroup}/{self.host.name}")
            )
            argv = ["sh", "-ec", f'{joined} exec "$@"', "sh", *argv]
        # From version 256 on, systemd refuses to boot on cgroup version 1.
        env = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"} if self._systemd_version() >= 256 else {}
        child = processes.start(argv, self.console, env=env)
        while child.poll() is None and processes.nspawn_of(self.root) is None:
            time.sleep(_INTERVAL)

    def connect(self, gateway: str) -> None:
        """Waits for the host's first process and configures its network interface."""
        ends = time.monotonic() + _BOOT
        while (leader := self.leader) is None or not self._has_interface(leader):
            self._check_alive(ends, "its first process did not appear")
            time.sleep(_INTERVAL)
        network.configure_host(leader, self.host.address, gateway)

    def allow_docker(self) -> None:
        """Makes cgroups and /proc/sys writable, as dockerd needs them.

        Call it when the host has booted: before that, systemd-nspawn may still be mounting them.
        """
        run("nsenter", "-t", str(self._leader()), "-m", "sh", "-c", WRITABLE)

    def wait(self) -> None:
        """Waits until users can log in. Raises LabError with the end of the journal when they cannot in time."""
        ends = time.monotonic() + _BOOT
        while not self.answers:
            self._check_alive(ends, f"sshd does not answer on {bracketed(self.host.address)}:{self.host.sshd_port}")
            time.sleep(_INTERVAL)
        # While a host boots, pam_nologin refuses every user but root. sshd may answer before that ends.
        while Path(f"/proc/{self._leader()}/root/run/nologin").exists():
            self._check_alive(ends, "/run/nologin was not removed")
            time.sleep(_INTERVAL)

    @property
    def answers(self) -> bool:
        """Whether an SSH server answers on its port."""
        try:
            with socket.create_connection((self.host.address, self.host.sshd_port), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def journal(self, lines: int = 20) -> str:
        """The last lines of the host's journal, or of its console when the host does not run."""
        if leader := self.leader:
            argv = ("nsenter", "-t", str(leader), "-m", "-p", "journalctl", "--no-pager", "-n", str(lines))
            return run(*argv, check=False).stdout
        return (
            "\n".join(self.console.read_text(errors="replace").splitlines()[-lines:]) if self.console.exists() else ""
        )

    def _systemd_version(self) -> int:
        """The version of its systemd, from the name of a library; 0 when it is not known."""
        found = (path.stem.rpartition("-")[2] for path in self.root.glob("usr/lib/*/systemd/libsystemd-shared-*.so"))
        return next((int(version) for version in found if version.isdigit()), 0)

    def _has_interface(self, leader: int) -> bool:
        # The sysfs of another network namespace cannot be read from here; /proc shows its interfaces.
        try:
            return "host0:" in Path(f"/proc/{leader}/net/dev").read_text()
        except OSError:
            return False

    def _leader(self) -> int:
        if leader := self.leader:
            return leader
        raise LabError(f"host {self.host.name} of lab {self.lab} does not run:\n{self.journal()}")

    def _check_alive(self, ends: float, what: str) -> None:
        if processes.nspawn_of(self.root) is None:
            raise LabError(f"host {self.host.name} of lab {self.lab} ended while booting:\n{self.journal()}")
        if time.monotonic() > ends:
            raise LabError(f"host {self.host.name} of lab {self.lab}: {what} within {_BOOT} s:\n{self.journal()}")


@dataclass(frozen=True)
class Tree:
    """A host's file tree, written from outside. Paths are the host's, without the leading slash."""

    root: Path

    def write(self, path: str, text: str, mode: int = 0o644, owner: int = 0) -> None:
        """Writes a whole file with that mode and owner (user and group id), and its folder when it is missing."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(text)
            os.fchmod(stream.fileno(), mode)
            os.fchown(stream.fileno(), owner, owner)

    def prepend(self, path: str, text: str) -> None:
        """Writes text before a file's own; mode and owner stay."""
        target = self.root / path
        target.write_text(text + (target.read_text() if target.exists() else ""))


def machine_name(lab: str, host: str) -> str:
    """The name for systemd-nspawn: at most 64 characters."""
    return f"provision-{lab}-{host}"[:64].rstrip("-.")


def wipe(lab: str, folder: Path) -> None:
    """Unmounts everything below the lab's `folder` and removes the folder and what a killed systemd-nspawn left in /run."""
    hosts = [machine_name(lab, host.name) for host in folder.glob("hosts/*")]
    left = [path for host in hosts for path in Path("/run/systemd/nspawn").glob(f"*/{host}") if path.is_dir()]
    for place in (*left, folder):
        unmount(place)
        remove(place)

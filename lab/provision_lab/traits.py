"""What a host of a lab can be like: each trait changes the host's file tree before it boots.

`bare` removes programs that minimal images do not have, and is a layer over the base image, built once. The other
traits write files of the host alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from provision_lab import cache
from provision_lab.hosts import LabHost
from provision_lab.image import Image
from provision_lab.machine import Tree
from provision_lab.run import run
from provision_lab.state import USER

_BARE = ("curl", "gpgconf", "git", "ufw", "ca-certificates", "openssl")  # with what depends on them, such as Ruby
CLOCK_BEHIND: Final = "-3d"
"""How far a clock with the trait `clock-behind` is off, as faketime takes it."""
_CLOCK_READERS = ("apt-get", "curl", "date")
# Without the shared memory: with it, apt's sqv waits for a semaphore without end (libfaketime 0.9.10, Debian 13).
_WRAPPER = """\
#!/bin/sh
LD_PRELOAD=$(echo /usr/lib/*/faketime/libfaketime.so.1) FAKETIME={offset} FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_DISABLE_SHM=1 \\
  exec /usr/lib/provision-lab/{name} "$@"
"""
_NOEXEC = """\
[Unit]
DefaultDependencies=no
After=local-fs.target
Before=ssh.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'mountpoint -q /tmp || mount -t tmpfs -o mode=1777 tmpfs /tmp; mount -o remount,noexec,nosuid,nodev /tmp'
[Install]
WantedBy=multi-user.target
"""
_NOISE = 'for n in 1 2 3 4 5 6 7 8 9; do echo "welcome $n"; echo "trouble $n" >&2; done; cat /etc/banner\n'


def bare_layer(image: Image, base: Path) -> Path:
    """The layer over the base image for bare hosts: without curl, gpg, git, ufw, openssl and authorities."""

    def make(draft: Path) -> None:
        for name in ("upper", "work", "root"):
            (draft / name).mkdir()
        root = draft / "root"
        run(
            "mount",
            "-t",
            "overlay",
            "-o",
            f"lowerdir={base},upperdir={draft}/upper,workdir={draft}/work",
            "overlay",
            root,
        )
        try:
            there = run("chroot", root, "dpkg-query", "-W", "-f", "${Package}\n", *_BARE, check=False).stdout.split()
            purge = ("apt-get", "-qq", "-y", "--allow-remove-essential", "purge", *there)
            run("chroot", root, "env", "DEBIAN_FRONTEND=noninteractive", *purge)
        finally:
            run("umount", root)

    return cache.ensure("bare", cache.key_of(image.key, _BARE), make) / "upper"


def apply_traits(tree: Tree, host: LabHost) -> None:
    """Gives a host's tree its traits."""
    for trait in host.traits:
        if trait != "bare":
            _TRAITS[trait](tree, host)


def _use_pty(tree: Tree, _: LabHost) -> None:
    tree.write("etc/sudoers.d/80-use-pty", "Defaults use_pty\nDefaults !requiretty\n", 0o440)


def _umask(tree: Tree, _: LabHost) -> None:
    """For logins (PAM), for sudo, and for shells."""
    tree.write("etc/sudoers.d/80-umask", "Defaults umask_override\nDefaults umask=0077\n", 0o440)
    path = tree.root / "etc/login.defs"
    path.write_text(f"{path.read_text()}\nUMASK 077\nHOME_MODE 0700\n")
    for name in ("root/.profile", "root/.bashrc", f"home/{USER}/.profile", f"home/{USER}/.bashrc"):
        tree.prepend(name, "umask 077\n")


def _noexec_tmp(tree: Tree, _: LabHost) -> None:
    tree.write("etc/systemd/system/noexec-tmp.service", _NOEXEC)
    run("chroot", tree.root, "systemctl", "enable", "-q", "noexec-tmp.service")


def _shell(path: str) -> Callable[[Tree, LabHost], None]:
    def change(tree: Tree, _: LabHost) -> None:
        run("chroot", tree.root, "usermod", "--shell", path, USER)

    return change


def _noisy(tree: Tree, _: LabHost) -> None:
    """sshd's banner has 2,000 lines; .bashrc prints on both streams, the banner again too."""
    tree.write("etc/banner", "".join(f"{n:04} Authorised use only. All activity is recorded.\n" for n in range(2000)))
    tree.write("etc/ssh/sshd_config.d/banner.conf", "Banner /etc/banner\n")
    tree.prepend(f"home/{USER}/.bashrc", _NOISE)


def _nameless(tree: Tree, host: LabHost) -> None:
    """The host does not know its own name. A GitLab host keeps the names in its URLs."""
    lines = (tree.root / "etc/hosts").read_text().splitlines()
    names = [" ".join(word for word in line.split() if word != host.name) for line in lines]
    tree.write("etc/hosts", "".join(f"{line}\n" for line in names if " " in line))


def _clock_behind(tree: Tree, _: LabHost) -> None:
    """All hosts share the machine's clock, so the programs that read it get another one."""
    for name in _CLOCK_READERS:
        kept = tree.root / "usr/lib/provision-lab" / name
        kept.parent.mkdir(parents=True, exist_ok=True)
        program = tree.root / "usr/bin" / name
        if program.exists():
            program.rename(kept)
            tree.write(f"usr/bin/{name}", _WRAPPER.format(name=name, offset=CLOCK_BEHIND), 0o755)


_TRAITS: Final[dict[str, Callable[[Tree, LabHost], None]]] = {
    "use-pty": _use_pty,
    "umask": _umask,
    "noexec-tmp": _noexec_tmp,
    "fish": _shell("/usr/bin/fish"),
    "csh": _shell("/bin/csh"),
    "noisy": _noisy,
    "nameless": _nameless,
    "clock-behind": _clock_behind,
}

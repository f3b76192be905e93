"""install_packages.sh and remove_packages.sh, run by each shell with a fake apt-get and locks that a process really holds."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from provision.host.scripts import NOTHING_CHANGED, body, script
from provision.shell import Command, Result
from provision.testing import LocalSession
from tests.support.apt import apt_config
from tests.support.local import Local, one_shell
from tests.support.programs import Programs

pytestmark = pytest.mark.slow

APT = """
case "$*" in
  *--print-uris*) [ ! -e {top}/unknown ] || exit 100; cat {top}/uris ;;
  *--download-only*) echo downloaded ;;
  *" install "*) [ ! -e {top}/failing ] || . {top}/failing; echo ran ;;
  *) echo ran ;;
esac
case "$*" in
  *--print-uris*) ;;
  *) env | grep '^OF_APT' | sed 's/^/environment: /' >> {top}/calls ;;
esac
"""
REFUSING = """
echo 'Preparing to unpack .../x_2_amd64.deb ...'
echo 'x preinstall: It is required to upgrade to the latest 1.5.x version first before proceeding.'
echo 'dpkg: error processing archive /var/cache/apt/archives/x_2_amd64.deb (--unpack):' >&2
echo ' new x package pre-installation script subprocess returned error exit status 1' >&2
echo 'Errors were encountered while processing:'
echo ' /var/cache/apt/archives/x_2_amd64.deb'
echo 'E: Sub-process /usr/bin/dpkg returned an error code (1)' >&2
exit 100
"""


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """apt-get and apt-cache."""
    programs = Programs(tmp_path / "host")
    programs.add("apt-get", APT.replace("{top}", str(programs.folder)))
    (programs.folder / "uris").touch()
    programs.add("apt-mark", '[ "$1" != showhold ] || echo y')
    programs.add("apt-cache", "echo 'x | 1.0 | somewhere'; echo 'x | 0.9 | somewhere'")
    return programs


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    """The files that dpkg and apt lock."""
    for name in ("dpkg/lock-frontend", "dpkg/lock", "apt/lists/lock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def host(programs: Programs, locks: Path, local: Local) -> LocalSession:
    """The session."""
    (programs.folder / "run").mkdir()
    folders = {"/var/lib/dpkg": locks / "dpkg", "/var/lib/apt": locks / "apt", "/run": programs.folder / "run"}
    return local(folders, {"PATH": programs.path})


def install(
    host: LocalSession,
    origin: str = "",
    environment: str = "",
    downgrade: str = "no",
    first: str = "",
    last: str = "",
) -> Result:
    """Installs a package at a version and one at any."""
    options = (origin, environment, downgrade, first, last)
    return host.run(script("install_packages", 5, 60, 100, *options, ["x=1.*", "y"]), deadline=20)


class TestInstall:
    """install_packages.sh."""

    def test_one_transaction(self, programs: Programs, host: LocalSession) -> None:
        """After an update, with apt's environment."""
        result = install(host, environment="OF_APT='1 2'")
        assert (result.code, result.errors) == (0, "")
        calls = programs.calls()
        assert re.fullmatch("apt-get -q .* update", calls[0])
        assert re.fullmatch("apt-get -q .* --download-only .*--allow-change-held-packages -- x=1.* y", calls[-3])
        assert re.fullmatch("apt-get -q install .*--allow-change-held-packages -- x=1.* y", calls[-2])
        assert calls[-1] == "environment: OF_APT=1 2"

    @pytest.mark.parametrize("code", [0, 1])
    def test_an_interrupted_dpkg_is_completed(
        self, programs: Programs, host: LocalSession, locks: Path, code: int
    ) -> None:
        """Before anything else, where dpkg's journal has entries. What dpkg cannot complete ends the script."""
        programs.add("dpkg", f"exit {code}")
        (locks / "dpkg/updates").mkdir()
        assert install(host).code == 0
        assert programs.calls("dpkg") == []
        (locks / "dpkg/updates/0001").touch()
        asked = len(programs.calls())
        result = install(host)
        assert result.code == (100 if code else 0)
        assert programs.calls()[asked] == "dpkg --force-confold --configure -a"
        assert (len(programs.calls()) == asked + 1) == bool(code)
        (programs.folder / "unknown").touch()
        assert install(host).code == 100  # dpkg may have changed something before apt failed

    def test_first_and_last(self, programs: Programs, host: LocalSession) -> None:
        """Around the installation, after the download; both are shell text of any kind."""
        calls = programs.folder / "calls"
        assert (
            install(host, first=f"set -- a; echo first $1 >> {calls}", last=f"echo last >> {calls}; exit 0").code == 0
        )
        shown = [re.sub(r".*(--download-only|install).*", r"\1", call) for call in programs.calls()]
        assert shown[-4:] == ["--download-only", "first a", "install", "last"]
        assert install(host, first="exit 7", last=f"echo last >> {calls}").code == 7  # it may have changed something
        assert "--download-only" in programs.calls()[-1]
        assert install(host, last="exit 1").code == 1

    @one_shell
    def test_downgrade(self, programs: Programs, host: LocalSession) -> None:
        """Only where it is allowed."""
        assert install(host, downgrade="yes").code == 0
        assert programs.calls("apt-get")[-1].endswith("--allow-change-held-packages --allow-downgrades -- x=1.* y")

    @pytest.mark.parametrize(
        ("uris", "problem"),
        [
            ("'https://a.example.com/x_1.0.deb' x\n'https://a.example.com/y_2.deb' y\n", ""),
            (
                "'https://a.example.com/x_1.0.deb' x\n",
                "no candidate for y: neither https://a.example.com/ nor any other",
            ),
            (
                "'https://b.example.com/x_1.0.deb' x\n",
                "x=1.* would come from https://b.example.com/x_1.0.deb instead of",
            ),
        ],
    )
    def test_origin(self, programs: Programs, host: LocalSession, uris: str, problem: str) -> None:
        """All addresses are compared before anything is installed."""
        (programs.folder / "uris").write_text(uris)
        result = install(host, origin="https://a.example.com/")
        assert result.errors.startswith(problem) if problem else result.errors == ""
        assert (result.code, "ran" in result.text) == (NOTHING_CHANGED if problem else 0, True)
        installed = [call for call in programs.calls("apt-get") if "--force-confold" in call]
        assert len(installed) == (0 if problem else 2)

    def test_what_a_package_prints(self, programs: Programs, host: LocalSession) -> None:
        """Its script's reason is on standard output, and dpkg's error names the script alone: both are in the error."""
        (programs.folder / "failing").write_text(REFUSING)
        result = install(host)
        assert result.code == 100
        assert result.errors.splitlines() == [
            "dpkg: error processing archive /var/cache/apt/archives/x_2_amd64.deb (--unpack):",
            " new x package pre-installation script subprocess returned error exit status 1",
            "E: Sub-process /usr/bin/dpkg returned an error code (1)",
            "the package's script printed:",
            "x preinstall: It is required to upgrade to the latest 1.5.x version first before proceeding.",
        ]
        assert "Preparing to unpack" in result.text
        assert programs.calls("apt-mark") == ["apt-mark showhold x y", "apt-mark hold y"]
        assert list((programs.folder / "run").iterdir()) == []

    @one_shell
    def test_unknown_version(self, programs: Programs, host: LocalSession) -> None:
        """The versions that are offered are named."""
        (programs.folder / "unknown").touch()
        result = install(host)
        assert (result.code, result.errors.splitlines()[0]) == (NOTHING_CHANGED, "x is offered as: 1.0, 0.9")

    @pytest.mark.parametrize("step", [" update", "--download-only"])
    def test_nothing_is_fetched(self, programs: Programs, host: LocalSession, step: str) -> None:
        """An index or a package cannot be fetched: apt's error is printed, and the code says that nothing was changed."""
        failing = f'case "$*" in *{step.strip()}*) echo "E: Failed to fetch x" >&2; exit 100 ;; esac\n'
        programs.add("apt-get", failing + APT.replace("{top}", str(programs.folder)))
        result = install(host)
        assert (result.code, result.errors) == (NOTHING_CHANGED, "E: Failed to fetch x\n")


SIZES = {"x": (3000, 1_000_000), "lib": (2000, 500_000)}  # KiB unpacked, bytes packed


class TestLists:
    """Which package lists are fetched by the second installation of a run."""

    @pytest.fixture
    def etc(self, tmp_path: Path) -> Path:
        """Replaces /etc/apt: a source with its key."""
        etc = tmp_path / "etc"
        for name in ("sources.list.d/debian.sources", "keyrings/debian.asc", "apt.conf.d/95proxy"):
            (etc / name).parent.mkdir(parents=True)
            (etc / name).write_text("before")
        return etc

    @pytest.fixture
    def lock(self, tmp_path: Path) -> Path:
        """The lock of the run."""
        (tmp_path / "home").mkdir()
        (tmp_path / "home/lock").write_text("host-pid 7 since 2026 by anna\n")
        return tmp_path / "home/lock"

    @pytest.fixture
    def host(self, programs: Programs, locks: Path, local: Local, etc: Path, lock: Path) -> LocalSession:
        """The session."""
        (programs.folder / "run").mkdir()
        folders = {"/var/lib/dpkg": locks / "dpkg", "/var/lib/apt": locks / "apt", "/run": programs.folder / "run"}
        return local({**folders, "/etc/apt": etc, "/var/lib/provision": lock.parent}, {"PATH": programs.path})

    def updates(self, programs: Programs, host: LocalSession) -> list[str]:
        """What is fetched by an installation: "all" or the names of sources."""
        before = len(programs.calls())
        assert install(host).code == 0
        found = [one for one in programs.calls()[before:] if one.endswith(" update")]
        alone = [re.search(r"Dir::Etc::SourceList=\S+/(\S+) .*List-Cleanup=0", one) for one in found]
        return [one[1] if one else "all" for one in alone]

    def test_each_list_once(self, programs: Programs, host: LocalSession, etc: Path) -> None:
        """Later, only the lists of sources that are new or changed are fetched."""
        assert self.updates(programs, host) == ["all"]
        assert self.updates(programs, host) == []
        (etc / "sources.list.d/docker.sources").write_text("new")
        (etc / "keyrings/docker.asc").write_text("new")
        assert self.updates(programs, host) == ["docker.sources"]
        assert self.updates(programs, host) == []
        (etc / "sources.list.d/new").write_text("differs")
        (etc / "sources.list.d/new").rename(etc / "sources.list.d/docker.sources")
        assert self.updates(programs, host) == ["docker.sources"]

    @pytest.mark.parametrize("name", ["apt.conf.d/95proxy", "keyrings/debian.asc", "sources.list"])
    def test_another_change_of_the_configuration(
        self, programs: Programs, host: LocalSession, etc: Path, name: str
    ) -> None:
        """All lists are fetched."""
        assert self.updates(programs, host) == ["all"]
        (etc / name).write_text("it differs")
        assert self.updates(programs, host) == ["all"]

    def test_a_source_that_is_gone(self, programs: Programs, host: LocalSession, etc: Path) -> None:
        """All lists are fetched."""
        assert self.updates(programs, host) == ["all"]
        (etc / "sources.list.d/debian.sources").unlink()
        assert self.updates(programs, host) == ["all"]

    def test_the_next_run_fetches_all(self, programs: Programs, host: LocalSession, lock: Path) -> None:
        """Packages may have been published since. Without the lock, no run is known, and all lists are fetched too."""
        assert self.updates(programs, host) == ["all"]
        lock.write_text("host-pid 7 since 2027 by anna\n")
        assert self.updates(programs, host) == ["all"]
        lock.unlink()
        assert self.updates(programs, host) == ["all"]
        assert self.updates(programs, host) == ["all"]

    def test_lists_that_another_program_removed(self, programs: Programs, host: LocalSession) -> None:
        """If apt does not find a package, all lists are fetched before this is an error."""
        assert self.updates(programs, host) == ["all"]
        (programs.folder / "unknown").touch()
        before = len(programs.calls())
        assert install(host).code == NOTHING_CHANGED
        assert [one for one in programs.calls()[before:] if one.endswith(" update")] != []

    def test_a_failure_is_tried_again(self, programs: Programs, host: LocalSession, etc: Path) -> None:
        """A list that could not be fetched is fetched again."""
        assert self.updates(programs, host) == ["all"]
        (etc / "sources.list.d/docker.sources").write_text("new")
        apt = (Path(programs.path.split(":")[0]) / "apt-get").read_text()
        programs.add("apt-get", 'case "$*" in *update) exit 100 ;; esac')
        assert install(host).code == NOTHING_CHANGED
        (Path(programs.path.split(":")[0]) / "apt-get").write_text(apt)
        assert self.updates(programs, host) == ["docker.sources"]


@one_shell
def test_apt_fetches_the_lists_of_one_source(local: Local, tmp_path: Path) -> None:
    """After a real apt-get, the packages of the new source are known. The lists of the other sources are unchanged."""
    etc, home = tmp_path / "etc", tmp_path / "home"
    for folder in (etc / "sources.list.d", home):
        folder.mkdir(parents=True)
    (home / "lock").write_text("host-pid 7\n")
    config = apt_config(tmp_path)
    config.write_text(config.read_text().replace('sourceparts "/dev/null"', f'sourceparts "{etc}/sources.list.d"'))
    session = local({"/etc/apt": etc, "/var/lib/provision": home}, {"APT_CONFIG": str(config)})

    def publish(name: str, *packages: str) -> None:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        text = "".join(f"Package: {one}\nVersion: 1\nArchitecture: all\nFilename: x\nSize: 1\n\n" for one in packages)
        (folder / "Packages").write_text(text)
        source = etc / f"sources.list.d/{name}.sources"
        if not source.exists():
            source.write_text(f"Types: deb\nURIs: copy:{folder}\nSuites: ./\nTrusted: yes\n")

    def known() -> list[str]:
        done = session.run(Command(f"set -e\n{body('lib/apt')}\nrefresh_lists 60 >&2; apt-cache pkgnames"), deadline=60)
        assert done.code == 0, done.errors
        return sorted(one for one in done.text.split() if one.startswith("of-"))

    publish("one", "of-one")
    assert known() == ["of-one"]
    publish("one", "of-one", "of-one-later")
    publish("two", "of-two")
    assert known() == ["of-one", "of-two"]
    (home / "lock").write_text("host-pid 8\n")
    assert known() == ["of-one", "of-one-later", "of-two"]


class TestSpace:
    """The disk space for the packages and what they depend on; apt compares the downloads only."""

    @pytest.fixture(autouse=True)
    def sizes(self, programs: Programs) -> None:
        """Two packages that would be installed, the second one new, and the free space of two file systems."""
        simulated = (
            "Inst x [0.9] (1.0 Somewhere:stable [amd64])\nInst lib (2:2.0-1 Somewhere:stable [amd64])\nConf x (1.0)"
        )
        programs.add(
            "apt-get", f"case \"$*\" in *-s*) printf '{simulated}\\n' ;; *--print-uris*) ;; *) echo ran ;; esac"
        )
        shown = "".join(
            f"Package: {name}\\nInstalled-Size: {unpacked}\\nSize: {packed}\\n\\n"
            for name, (unpacked, packed) in SIZES.items()
        )
        programs.add("apt-cache", f"printf '{shown}'")

    def free(self, programs: Programs, *kib: int) -> None:
        """Lets df print these figures."""
        rows = "".join(f"/dev/x 9000000 1 {one} 1%% /x\\n" for one in kib)
        programs.add("df", f"printf 'Filesystem 1024-blocks Used Available Capacity Mounted on\\n{rows}'")

    @pytest.mark.parametrize("kib", [(6464, 1), (1, 9000)])
    def test_enough(self, programs: Programs, host: LocalSession, kib: tuple[int, ...]) -> None:
        """5000 KiB for the files and 1464 for the downloads."""
        self.free(programs, *kib)
        assert install(host).code == 0
        assert [call for call in programs.calls("apt-cache") if "=" in call] == [
            "apt-cache --no-all-versions show -- x=1.0 lib=2:2.0-1"
        ]

    def test_not_enough(self, programs: Programs, host: LocalSession) -> None:
        """Nothing is downloaded; the figures are named."""
        self.free(programs, 6463, 100)
        result = install(host)
        assert (result.code, result.errors) == (
            NOTHING_CHANGED,
            "not enough disk space: 7 MiB are needed for 2 packages, 6 MiB are free\n",
        )
        assert not [call for call in programs.calls("apt-get") if "--download-only" in call]


@one_shell
class TestLocks:
    """The waiting, before each transaction."""

    @staticmethod
    def remove(host: LocalSession, seconds: int) -> Result:
        """Removes a package."""
        return host.run(script("remove_packages", seconds, "x"), deadline=20)

    def test_free_locks(self, host: LocalSession) -> None:
        """No waiting; a missing lock file is no lock."""
        result = self.remove(host, 5)
        assert (result.text, result.errors) == ("ran\n", "")

    def test_holder_is_named(self, host: LocalSession, locks: Path) -> None:
        """By the name and number of its process, with the lock that it holds; in the end the script fails."""
        with (locks / "apt/lists/lock").open("w") as held:
            fcntl.lockf(held, fcntl.LOCK_EX)
            result = self.remove(host, 1)
        who = f"{Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})"
        assert result.text == f"waiting for {locks}/apt/lists/lock, held by {who}\n"
        assert result.errors == f"{locks}/apt/lists/lock has been held for 1 s by {who}\n"
        assert result.code == 100

    def test_continues_once_the_lock_is_free(self, host: LocalSession, locks: Path) -> None:
        """Another process holds it for half a second."""
        holding = (
            "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); "
            "print('held', flush=True); time.sleep(0.5)"
        )
        holder = subprocess.Popen([sys.executable, "-c", holding, locks / "dpkg/lock-frontend"], stdout=subprocess.PIPE)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        result = self.remove(host, 10)
        holder.wait()
        holder.stdout.close()
        assert re.fullmatch(rf"waiting for .*lock-frontend, held by \S+ \(pid {holder.pid}\)\nran\n", result.text)

    def test_the_holder_is_named_again(self, host: LocalSession, locks: Path) -> None:
        """Every minute, with how long it has been; a minute is 60 rounds here, not seconds."""
        command = script("remove_packages", 121, "x")
        with (locks / "apt/lists/lock").open("w") as held:
            fcntl.lockf(held, fcntl.LOCK_EX)
            result = host.run(Command(f"sleep() {{ :; }}\n{command.script}"), deadline=60)
        first, *later = result.text.splitlines()
        assert first.endswith(f"(pid {os.getpid()})")
        assert later == [f"{first}, for {seconds} s of at most 121 s" for seconds in (60, 120)]
        assert "has been held for 121 s" in result.errors

    def test_failure_of_apt(self, programs: Programs, host: LocalSession) -> None:
        """Its exit code is the script's."""
        programs.add("apt-get", "exit 7")
        assert self.remove(host, 5).code == 7


class Repository:
    """A package repository on loopback that sends its index piece by piece, with a pause after each."""

    def __init__(self, folder: Path, pieces: int, pause: float) -> None:
        self.pieces, self.pause = pieces, pause
        self.closed = threading.Event()
        self.server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        port = self.server.getsockname()[1]
        self.config = apt_config(folder, f"deb [trusted=yes] http://127.0.0.1:{port}/ ./")

    def close(self) -> None:
        """Ends the server and its pauses."""
        self.closed.set()
        self.server.shutdown(socket.SHUT_RDWR)  # ends accept(), which close() does not
        self.server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed by the test
            while True:
                connection, _ = self.server.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            asked = connection.recv(65536).split(b" ")[1]
            if not asked.endswith(b"/Packages"):
                connection.sendall(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            size = 100 * self.pieces
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size)
            for number in range(self.pieces):
                head = b" " if number else b"Package: a\nVersion: 1\nArchitecture: all\nDescription: "
                connection.sendall(head.ljust(99, b"x") + b"\n")
                self.closed.wait(self.pause)  # the pause is what the test is about


@one_shell
@pytest.mark.parametrize(("pieces", "pause", "code"), [(8, 0.5, 0), (3, 30.0, 100)], ids=["slow", "stalled"])
def test_a_download_ends_when_nothing_arrives(
    local: Local, tmp_path: Path, pieces: int, pause: float, code: int
) -> None:
    """A real apt-get with a limit of 2 s: four slow seconds are no failure, and a silent server does not hold it up."""
    with contextlib.closing(Repository(tmp_path, pieces, pause)) as repository:
        session = local({}, {"APT_CONFIG": str(repository.config)})
        fetch = body("lib/apt").replace("Acquire::Retries=3", "Acquire::Retries=0")
        started = time.monotonic()
        result = session.run(Command(f"{fetch}\nfetch_with_apt 2 -o APT::Update::Error-Mode=any update"), deadline=60)
    assert result.code == code, result.errors
    assert time.monotonic() - started < 20

"""All host scripts, and those that no other test file runs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from provision.host.scripts import FOLDER, body, file_text, script
from provision.secret import Secret
from provision.shell import Result
from provision.testing import LocalSession
from tests.support.local import Local
from tests.support.programs import Programs

NAMES = sorted(path.stem for path in FOLDER.glob("*.sh"))
LIBRARIES = sorted(f"lib/{path.stem}" for path in FOLDER.glob("lib/*.sh"))
CODE = "\n".join(path.read_text() for path in FOLDER.parents[1].rglob("*.py"))


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """The host's programs."""
    return Programs(tmp_path / "host")


@pytest.fixture
def host(programs: Programs, local: Local) -> LocalSession:
    """The session."""
    return local({"/etc/systemd/system": programs.folder / "units"}, {"PATH": programs.path})


def run(host: LocalSession, name: str, *arguments: Any, stdin: str = "") -> Result:
    """Runs a script to its end."""
    return host.run(script(name, *arguments).reading(stdin), deadline=20)


class TestFiles:
    """The files themselves."""

    @pytest.mark.parametrize("name", [*NAMES, *LIBRARIES])
    def test_has_a_header(self, name: str) -> None:
        """A shebang, then a comment."""
        assert re.match(r"#!/bin/sh\n# \w", (FOLDER / f"{name}.sh").read_text())

    def test_each_shell_reads_all(self, shell: tuple[str, ...]) -> None:
        """No syntax of one shell alone; every library is found."""
        for name in NAMES:
            done = subprocess.run([*shell, "-n", "-c", body(name)], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, ""), name

    @pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("acme_hook_")])
    def test_is_used(self, name: str) -> None:
        """By its name in the code."""
        assert f'"{name}"' in CODE or f"'{name}'" in CODE


class TestScript:
    """`script` and `file_text`."""

    def test_arguments_are_quoted(self) -> None:
        """Lists stand for several; a script without arguments has none, whatever ran before it."""
        command = script("clear_pending", "a b", ["it's", "-e"], 5)
        assert command.script.startswith("# clear_pending.sh\nset -- 'a b' 'it'\"'\"'s' -e 5\n")
        assert script("check_bucket").script.startswith("# check_bucket.sh\nset --\n")

    def test_a_secret_is_no_argument(self) -> None:
        """It would stand in a process list."""
        with pytest.raises(TypeError, match="standard input"):
            script("clear_pending", Secret("x"))  # type: ignore[arg-type]

    def test_a_file_for_the_host_needs_no_library(self) -> None:
        """It is written there alone."""
        assert file_text("acme_hook_pre").startswith("#!/bin/sh\n")
        with pytest.raises(ValueError, match="cannot be a file on a host"):
            file_text("build_image")


def test_guard_is_armed(programs: Programs, host: LocalSession) -> None:
    """The text that undoes the change reaches systemd-run as one argument."""
    programs.add("systemctl")
    programs.add("systemd-run", f'for word; do printf "%s\\n" "$word"; done > {programs.folder}/words')
    assert run(host, "arm_guard", "guard", 60, "ufw --force disable; echo 'x'").code == 0
    words = (programs.folder / "words").read_text().splitlines()
    assert words[-3:] == ["/bin/sh", "-c", "ufw --force disable; echo 'x'"]
    assert "--unit=guard" in words
    programs.add("systemd-run", "exit 7")
    assert run(host, "arm_guard", "guard", 60, "true").code == 7


class TestAcme:
    """obtain_certificate.sh and certbot's hooks."""

    @pytest.fixture
    def hooks(self, programs: Programs) -> Path:
        """The hooks' folder, with hooks that are recorded."""
        for name in ("pre", "post"):
            (programs.folder / f"hooks/{name}").mkdir(parents=True)
            programs.add("gitlab")
            (programs.folder / "bin/gitlab").rename(programs.folder / f"hooks/{name}/gitlab")
        return programs.folder / "hooks"

    @pytest.mark.parametrize("again", ["", "yes"])
    def test_certbot_between_the_hooks(self, programs: Programs, host: LocalSession, hooks: Path, again: str) -> None:
        """nginx frees the port before it and starts after it, also when certbot fails."""
        programs.add("certbot", "exit 3")
        result = run(host, "obtain_certificate", str(hooks), "g.example.com", "ops@example.com", "https://acme", again)
        assert result.code == 3
        first, certbot, last = programs.calls()
        assert (first, last) == ("gitlab ", "gitlab ")
        assert ("--force-renewal" in certbot) == bool(again)
        assert "--cert-name g.example.com -d g.example.com --email ops@example.com --server https://acme" in certbot

    @pytest.mark.parametrize(("listening", "stopped"), [("LISTEN 0 5 *:80 *:*", ["gitlab-ctl stop nginx"]), ("", [])])
    def test_pre_hook(self, programs: Programs, shell: tuple[str, ...], listening: str, stopped: list[str]) -> None:
        """nginx is stopped where something listens on port 80."""
        programs.add("ss", f"echo '{listening}'" if listening else "")
        programs.add("gitlab-ctl")
        self.hook("pre", programs, shell)
        assert programs.calls("gitlab-ctl") == stopped

    @pytest.mark.skipif(Path("/opt/gitlab/service/nginx").exists(), reason="this machine has a GitLab")
    @pytest.mark.parametrize("name", ["post", "deploy"])
    def test_other_hooks_without_gitlab(self, programs: Programs, shell: tuple[str, ...], name: str) -> None:
        """There is no nginx to start or to reload."""
        programs.add("gitlab-ctl")
        self.hook(name, programs, shell)
        assert programs.calls() == []

    @staticmethod
    def hook(name: str, programs: Programs, shell: tuple[str, ...]) -> None:
        """Runs a hook as certbot does."""
        command = [*shell, "-c", file_text(f"acme_hook_{name}")]
        subprocess.run(command, env={"PATH": programs.path}, check=True)


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("https://gitlab.example.com", "gitlab.example.com.crt"),
        ("https://gitlab.example.com:8443/git", "gitlab.example.com.crt"),
        ("https://[2001:db8::1]:8443", "[2001.crt"),
    ],
)
def test_gitlab_runner_cuts_the_host_at_the_first_colon(shell: tuple[str, ...], url: str, file: str) -> None:
    """In an IPv6 address as well: lib/runner.sh looks for the CA under the same name."""
    library = (FOLDER / "lib/runner.sh").read_text()
    asked = f'{library}\nrunner_ca "$1"; echo "$ca"'
    done = subprocess.run([*shell, "-c", asked, "sh", url], capture_output=True, text=True, check=True)
    assert done.stdout == f"/etc/gitlab-runner/certs/{file}\n"


@pytest.mark.parametrize("path", sorted([*FOLDER.glob("*.sh"), *FOLDER.glob("lib/*.sh")]), ids=lambda path: path.name)
def test_grep_reads_text_that_is_not_utf_8(path: Path) -> None:
    """Under C.UTF-8 grep prints "binary file matches" instead of lines of another encoding, without -a."""
    calls = re.findall(
        r"\bgrep (-\w+|\S+)", "\n".join(line for line in path.read_text().splitlines() if line[:1] != "#")
    )
    assert [flags for flags in calls if not (flags[0] == "-" and set("aq") & set(flags))] == []


@pytest.mark.parametrize(
    ("state", "code", "calls"),
    [
        ("run", 0, ["status registry", "restart registry"]),
        ("down", 0, ["status registry"]),
        ("run", 1, ["status registry", "restart registry"]),
    ],
)
def test_the_registry_is_restarted_where_it_runs(
    programs: Programs, host: LocalSession, state: str, code: int, calls: list[str]
) -> None:
    """restart_registry.sh: one that was stopped stays so. Without its key there is nothing to wait for; a failure is one."""
    program = f'case $1 in status) echo "{state}: registry: (pid 1) 3s" ;; restart) exit {code} ;; esac'
    programs.add("gitlab-ctl", program)
    done = run(host, "restart_registry", "/nowhere/config.yml", "/nowhere/gitlab.yml")
    assert (done.code, done.errors) == (code, "")
    assert programs.calls() == [f"gitlab-ctl {one}" for one in calls]
    assert ("no key to sign" in done.text) is ((state, code) == ("run", 0))

"""`provision lab` without a lab, and where a lab is not possible."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from provision.cli import exit_code_of
from provision_lab import LabUnavailable, run


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVISION_LAB_STATE", str(tmp_path))


def test_status_without_labs_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    """No lab is not an error."""
    assert exit_code_of(["lab", "status"]) == 0
    assert capsys.readouterr().out == "there is no lab; to boot one: provision lab up\n"


def test_ssh_without_a_lab_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, with the next step."""
    assert exit_code_of(["lab", "ssh", "gitlab"]) == 2
    assert capsys.readouterr().err == "error: there is no lab lab\n  → provision lab up\n"


def test_real_packages_need_an_inventory(capsys: pytest.CaptureFixture[str]) -> None:
    """The lab's own inventory names the lab's own repositories."""
    assert exit_code_of(["lab", "up", "--real"]) == 2
    assert "--real needs --inventory" in capsys.readouterr().err


def test_a_broken_inventory_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error has file and line; no lab's folder is created."""
    path = tmp_path / "x.toml"
    path.write_text("[hosts.a]\nadress = 1\n")
    assert exit_code_of(["lab", "up", "-i", str(path)]) == 2
    assert f"{path}:2" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["x.toml"]


def test_missing_programs_are_named_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the packages to install."""
    if os.geteuid() != 0:
        pytest.skip("without root, the missing root is reported first")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LabUnavailable) as refused:
        run.require(build=True)
    assert "mmdebstrap, systemd-nspawn, ip, nft" in refused.value.text
    assert "systemd-container" in refused.value.hint


def test_without_root_it_says_sudo() -> None:
    """Without root: exit code 2, with the next step."""
    if os.geteuid() != 0:
        pytest.skip("drops root to find out")
    # Imported first: nobody may not read a Python that lies in root's home.
    script = "import os; from provision_lab.run import require; os.setuid(65534); require(build=False)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "LabUnavailable: a lab needs root" in done.stderr
    assert "sudo" in done.stderr

"""What the command line prints about the user's own tasks, and about tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.playbooks import write_estate


def test_the_command_line_knows_it(tmp_path: Path, provision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """list, schema, explain, inventory; a misspelt key is refused with file and line."""
    path = write_estate(tmp_path, "[node_exporter]\nport = 9200\n")
    monkeypatch.chdir(path.parent)
    assert "Install the Prometheus node exporter and keep it running. (on all)" in provision("list").out
    assert '"node_exporter"' in provision("schema").out
    explained = provision("explain", "node_exporter").out
    assert "task node_exporter, on all\n\n  Install the Prometheus node exporter" in explained
    assert "  tables: [node_exporter]\n" in explained
    assert "  port  (number, default 9100)\n    Where it listens.\n" in explained
    assert "  [node_exporter]" in provision("explain").out
    assert "node_exporter.port = 9200" in provision("inventory", "-i", str(path)).out
    path.write_text(path.read_text().replace("port =", "prot ="))
    ended = provision("node_exporter", "-i", str(path), "--check")
    assert ended.code == 2
    assert f'{path}:4: node_exporter.prot: unknown key; did you mean "port"?' in ended.err


def test_explaining_what_there_is_not(provision: Any) -> None:
    """The message names the nearest name."""
    ended = provision("explain", "dokcer")
    assert (ended.code, 'did you mean "docker"?' in ended.err) == (2, True)
    assert "table [registry.certificate]\n" in provision("explain", "registry.certificate").out

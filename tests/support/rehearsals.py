"""For tests of rehearsals: a lab for an inventory as if it were up, and its overlay."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from provision_lab import Lab, LabHost, rehearsal, state


def rehearsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, **options: Any) -> tuple[Lab, list[Path]]:
    """A lab for the inventory as if it were up, and the files of the rehearsal."""
    monkeypatch.setenv("PROVISION_LAB_STATE", str(tmp_path / "state"))
    inventory = tmp_path / "estate.toml"
    inventory.write_text(text)
    inventory.chmod(0o600)
    planned, server = rehearsal.plan([inventory])
    lab = Lab("x", planned, server=server, **options)
    hosts = tuple(
        LabHost(one.name, f"198.18.7.{n}", gitlab=one.gitlab, names=one.names) for n, one in enumerate(planned, 10)
    )
    lab._record = state.Record("x", "198.18.7.0/24", hosts, lab.image, server, internet=lab.internet)
    lab.folder.mkdir(parents=True)
    # Base64 of a key begins with AAAA.
    keys = {one.address: b64encode(bytes(3) + one.name.encode()).decode() for one in hosts}
    lab.known_hosts.write_text("".join(f"{address} ssh-ed25519 {key}\n" for address, key in keys.items()))
    overlay = lab.folder / "overlay.toml"
    overlay.write_text(tomlkit.dumps(rehearsal.overlay(lab, [inventory])))
    overlay.chmod(0o600)
    return lab, [inventory, overlay]

"""What is known of a lab on disk: one folder below the state root, with `lab.json` in it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from provision_lab.host import LabHost
from provision_lab.image import Image
from provision_lab.processes import Identity
from provision_lab.server import Server


def root() -> Path:
    """$PROVISION_LAB_STATE, else /var/lib/provision-lab: a folder per lab."""
    return Path(os.environ.get("PROVISION_LAB_STATE") or "/var/lib/provision-lab")


@dataclass(frozen=True)
class Record:
    """A lab as it was asked for. `owner`: the process that it is not to outlive; `complete`: it came up whole.
    `internet`: hosts reach beyond this machine; `kernel`: settings raised for it, as they were.
    """

    name: str
    subnet: str
    hosts: tuple[LabHost, ...]
    image: Image
    server: Server
    owner: Identity | None = None
    complete: bool = False
    internet: bool = False
    kernel: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Everything of the lab is below it."""
        return root() / self.name

    def save(self) -> None:
        """Writes `lab.json`, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / "lab.json.draft"
        draft.write_text(json.dumps(asdict(self), indent=1))
        draft.rename(self.folder / "lab.json")


def load(name: str) -> Record | None:
    """The lab's record; None when there is no such lab, or one that was killed before it had a record.

    A record that another version of this program wrote counts as none: such a lab can be taken down, by its name.
    """
    try:
        data = json.loads(root().joinpath(name, "lab.json").read_text())
        hosts = tuple(LabHost(**{**host, "names": tuple(host["names"])}) for host in data.pop("hosts"))
        server = Server(**{**data["server"], "names": tuple(data.pop("server")["names"])})
        image, owner = Image(**data.pop("image")), data.pop("owner")
        return Record(**data, hosts=hosts, image=image, server=server, owner=owner and Identity(**owner))
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None


def names() -> list[str]:
    """All labs that have a folder."""
    return sorted(path.name for path in root().glob("*") if path.is_dir())

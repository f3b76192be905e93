"""Planted secrets, and the means to find them again in processes, bytes and files."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from provision_lab.harness import Harness

_SAMPLER = Path(__file__).with_name("sampler.py")


@dataclass
class Canaries:
    """Planted secrets by name. `outputs` is what the program printed in each run, `seen` where processes had them."""

    texts: dict[str, str]
    outputs: dict[str, str] = field(default_factory=dict)
    seen: list[tuple[str, int, str]] = field(default_factory=list)
    samples: int = 0

    def inside(self, data: bytes) -> list[str]:
        """The names of the secrets that the data contains, in any form."""
        return [name for name, text in self.texts.items() if any(form in data for form in forms(text))]


def forms(text: str) -> set[bytes]:
    """The forms that a text may take: plain, in a URL, in JSON, in base64 at any of three offsets."""
    coded = {base64.b64encode(b"x" * skip + text.encode())[4 if skip else 0 : -4] for skip in range(3)}
    return {text.encode(), quote(text, safe="").encode(), json.dumps(text)[1:-1].encode(), *coded}


@contextmanager
def watched(harness: Harness, canaries: Canaries) -> Iterator[None]:
    """Reads argv and environment of every process while the block runs, but those of other labs' hosts."""
    spaces = {os.readlink(f"/proc/{machine.leader}/ns/pid") for machine in harness.lab.machines}  # noqa: PTH115
    argv = [sys.executable, str(_SAMPLER), f"provision-{harness.lab.name}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sampler:
        assert sampler.stdin is not None
        assert sampler.stdout is not None
        wanted = {name: [form.decode("latin-1") for form in forms(text)] for name, text in canaries.texts.items()}
        wanted["runner_token"] = ["glrt-"]  # GitLab creates it during the run
        sampler.stdin.write(json.dumps(wanted) + "\n")
        sampler.stdin.flush()
        assert sampler.stdout.readline() == "watching\n"
        try:
            yield
        finally:
            sampler.stdin.close()
            found = json.loads(sampler.stdout.read())
    canaries.samples += found["samples"]
    # A text that only looks like a token may belong to another lab, which is tested at the same time.
    ours = [(name, pid, what) for name, pid, what, space in found["seen"] if name != "runner_token" or space in spaces]
    canaries.seen += ours


def files(tree: Path) -> Iterator[Path]:
    """The plain files below a folder."""
    for folder, _, names in os.walk(tree):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path

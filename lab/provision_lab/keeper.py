"""Takes a lab down when its owner is gone:  python -m provision_lab.keeper LAB-FOLDER

Its standard input is a pipe whose other end only the owner has: the end of file comes with the
owner's own, kill -9 included.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(folder: str) -> None:
    """Waits for the owner's end."""
    sys.stdin.buffer.read()
    from provision_lab.lab import Lab

    if lab := Lab.find(Path(folder).name):
        lab.down()


if __name__ == "__main__":
    main(sys.argv[1])

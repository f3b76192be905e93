"""`python:VERSION-slim` for a host without internet: Debian's Python with pip, and coverage as a wheel to install."""

from __future__ import annotations

import re
import shutil
import zipfile
from importlib.metadata import distribution
from pathlib import Path

from provision_lab.harness import Harness

_PIP = "#!/usr/bin/python3\nimport sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n"
_CONFIG = (
    "[global]\nno-index = true\nfind-links = /wheels\ndisable-pip-version-check = true\nroot-user-action = ignore\n"
)
# The image is made of the host's own system. EXTERNALLY-MANAGED is Debian's; images for Python do not have it.
_IMPORT = """
cd / && tar -c --exclude EXTERNALLY-MANAGED --exclude usr/lib/modules --exclude usr/lib/systemd \
  bin lib lib64 sbin etc/alternatives etc/ld.so.cache etc/passwd usr/bin usr/lib usr/lib64 \
  -C /opt/python-image usr/local etc/pip.conf wheels 2>/dev/null | docker import - %s
"""


def make(harness: Harness, host: str, name: str) -> None:
    """Creates the image on the host."""
    root = harness.lab.machine(host).root
    top = root / "opt/python-image"
    python = (root / "usr/bin/python3").readlink()  # python3.N
    packages = top / "usr/local/lib" / python / "dist-packages"
    (top / "usr/local/bin").mkdir(parents=True)
    (top / "etc").mkdir()
    (top / "etc/pip.conf").write_text(_CONFIG)
    (top / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    pip = top / "usr/local/bin/pip"
    pip.write_text(_PIP)
    pip.chmod(0o755)
    ignore = shutil.ignore_patterns("__pycache__")
    source = Path(str(distribution("pip").locate_file("")))
    for folder in ("pip", f"pip-{distribution('pip').version}.dist-info"):
        shutil.copytree(source / folder, packages / folder, ignore=ignore)
    (top / "wheels").mkdir()
    _wheel("coverage", top / "wheels")
    harness.lab.inside(host, _IMPORT % name, deadline=300)


def _wheel(name: str, folder: Path) -> None:
    """Writes an installed package as a wheel without compiled parts, which any Python can install."""
    found = distribution(name)
    tag = f"{name}-{found.version}"
    with zipfile.ZipFile(folder / f"{tag}-py3-none-any.whl", "w") as wheel:
        for file in found.files or ():
            if (
                file.suffix in (".so", ".pyc")
                or ".." in file.parts
                or file.name in ("RECORD", "INSTALLER", "REQUESTED")
            ):
                continue
            data = Path(str(file.locate())).read_bytes()
            if file.name == "WHEEL":
                data = re.sub(rb"(?m)^Tag: .*\n", b"", data).rstrip(b"\n") + b"\nTag: py3-none-any\n"
            wheel.writestr(str(file), data)
        wheel.writestr(f"{tag}.dist-info/RECORD", "")

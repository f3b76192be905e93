"""Builds the stand-in's .deb files: a current version, and older ones to test what depends on the version."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from provision_lab.standins.gitlab_ce.host.layout import nested_nginx, parse_version

HERE = Path(__file__).resolve().parent
VERSIONS = ("18.0.0-ce.0", "18.11.5-ce.0", "19.2.4-ce.0", "19.3.0-ce.0")
_STOPS = (2, 5, 8, 11)  # minor versions that an upgrade may not skip
LIBRARY = "opt/gitlab/embedded/lib/standin"
_LINKS = {
    "usr/bin/gitlab-ctl": "/opt/gitlab/bin/gitlab-ctl",
    "usr/bin/gitlab-rails": "/opt/gitlab/bin/gitlab-rails",
    "opt/gitlab/embedded/bin/ruby": "/usr/bin/ruby",
}


def build(out: Path) -> list[Path]:
    """Writes `gitlab-ce_VERSION_ARCH.deb` for every version into `out`. Needs dpkg-deb."""
    out.mkdir(parents=True, exist_ok=True)
    architecture = _run("dpkg", "--print-architecture").strip()
    return [_build(out, version, architecture) for version in VERSIONS]


def _build(out: Path, version: str, architecture: str) -> Path:
    target = out / f"gitlab-ce_{version}_{architecture}.deb"
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        _write_tree(tree, version)
        _control(tree / "DEBIAN", version, architecture)
        _run("dpkg-deb", "--root-owner-group", "-b", "-Zgzip", "-z1", str(tree), str(target))
    return target


def _write_tree(tree: Path, version: str) -> None:
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(HERE / "root", tree)
    shutil.copytree(HERE / "host", tree / LIBRARY / "gitlab_standin", ignore=unwanted)
    shutil.copytree(HERE / "rb", tree / LIBRARY / "rb")
    number = version.split("-")[0]
    (tree / "opt/gitlab/version-manifest.txt").write_text(f"gitlab-ce {number}\n")
    manifest = json.dumps({"build_version": number}, indent=2)
    (tree / "opt/gitlab/version-manifest.json").write_text(f"{manifest}\n")
    (tree / "opt/gitlab/embedded/cookbooks/cache").mkdir(parents=True)
    template = tree / "opt/gitlab/etc/gitlab.rb.template"
    section = "nginx-19.2.rb" if nested_nginx(parse_version(version)) else "nginx-before.rb"
    template.write_text(template.read_text().replace("@NGINX@\n", (HERE / "debian" / section).read_text()))
    for link, target in _LINKS.items():
        (tree / link).parent.mkdir(parents=True, exist_ok=True)
        (tree / link).symlink_to(target)
    # The tree comes from a wheel, or from a checkout with any umask: set all modes.
    for path in tree.rglob("*"):
        if path.is_symlink():
            continue
        program = path.is_dir() or path.parent.name == "bin"
        path.chmod(0o755 if program else 0o644)
    tree.chmod(0o755)


def _control(folder: Path, version: str, architecture: str) -> None:
    folder.mkdir(mode=0o755)
    text = (HERE / "debian/control").read_text()
    (folder / "control").write_text(text.replace("@VERSION@", version).replace("@ARCHITECTURE@", architecture))
    words = {"@MINIMUM@": minimum(version), "@MINOR@": ".".join(version.split(".")[:2])}
    for name in ("preinst", "postinst", "prerm", "postrm"):
        text = (HERE / "debian" / name).read_text()
        for word, value in words.items():
            text = text.replace(word, value)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def minimum(version: str) -> str:
    """The release that an upgrade to this one must start from at least: the last required stop before it.

    Sources: docs.gitlab.com/update/upgrade_paths; MIN_VERSION in omnibus-gitlab's preinst.erb, 19.2 for 19.3.
    """
    major, minor, _ = parse_version(version)
    earlier = [one for one in _STOPS if one < minor]
    return f"{major}.{earlier[-1]}" if earlier else f"{major - 1}.{_STOPS[-1]}"


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout

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
COMMANDS = ("gitlab-ctl", "gitlab-rails")  # in the PATH of every user
# What the package carries, because a host may lack it: the real one contains all of it, and depends on openssh-server and
# perl alone. Source: omnibus-gitlab, config/projects/gitlab.rb; config/software/{ruby,openssl,curl,git,cacerts}.rb.
_PROGRAMS = ("openssl", "curl", "git")
_CARRY_RUBY = "require 'rbconfig'; puts RbConfig::CONFIG.values_at('rubylibdir', 'rubyarchdir', 'LIBRUBY_SO')"
# Without what gitlab.rb does not need: each file costs time at every installation.
_UNUSED_RUBY = (
    *("bundler*", "did_you_mean*", "error_highlight*", "irb*", "prism*", "rdoc*", "reline*", "ruby_vm", "rubygems*"),
    "syntax_suggest*",
)
# The modules of the ACME client that are no part of the system's Python; cryptography belongs to no authority.
_CARRY_PYTHON = """
import sys
import acme.challenges, acme.client, acme.crypto_util, acme.messages, josepy
files = {(name.split(".")[0], one.__file__) for name, one in sys.modules.items() if getattr(one, "__file__", None)}
print(*sorted({name for name, file in files if "/dist-packages/" in file} - {"certifi", "chardet", "cryptography", "_cffi_backend", "bcrypt"}))
"""
_CERTIFI = """\
def where():
    return "/opt/gitlab/embedded/ssl/cert.pem"
"""
_RUBY = """\
#!/bin/sh
# Ruby with the libraries beside it.
own=/opt/gitlab/embedded/lib/ruby
LD_LIBRARY_PATH=$own RUBYLIB=$own/lib:$own/arch exec $own/ruby --disable=gems "$@"
"""


def build(out: Path, root: Path | None = None) -> list[Path]:
    """Writes `gitlab-ce_VERSION_ARCH.deb` for every version into `out`. Needs dpkg-deb.

    root    the system that the packages carry Ruby, OpenSSL, curl, git, authorities and an ACME client of; without it, they
            contain nothing of the kind, and cannot be used
    """
    out.mkdir(parents=True, exist_ok=True)
    architecture = _run("dpkg", "--print-architecture").strip()
    with tempfile.TemporaryDirectory() as folder:
        carried = Path(folder)
        if root:
            _carry(root, carried)
        return [_build(out, version, architecture, carried) for version in VERSIONS]


def _carry(root: Path, embedded: Path) -> None:
    """Copies from the system at `root` what is below /opt/gitlab/embedded."""
    for name in ("bin", "ssl/certs", "lib/ruby", "lib/python"):
        (embedded / name).mkdir(parents=True)
    for name in _PROGRAMS:
        shutil.copy(root / "usr/bin" / name, embedded / "bin" / name)
    shutil.copy(root / "etc/ssl/certs/ca-certificates.crt", embedded / "ssl/certs/cacert.pem")
    (embedded / "ssl/cert.pem").symlink_to("certs/cacert.pem")
    library, native, shared = _run("chroot", str(root), "ruby", "--disable=gems", "-e", _CARRY_RUBY).splitlines()
    own = embedded / "lib/ruby"
    shutil.copy(root / "usr/bin/ruby", own / "ruby")
    (found,) = root.glob(f"usr/lib/*/{shared}")
    shutil.copy(found, own / shared.rpartition(".")[0])  # its SONAME: libruby-3.3.so.3.3
    shutil.copytree(root / library[1:], own / "lib", ignore=shutil.ignore_patterns(*_UNUSED_RUBY))
    shutil.copytree(root / native[1:], own / "arch")
    (embedded / "bin/ruby").write_text(_RUBY)
    (embedded / "lib/python/certifi.py").write_text(_CERTIFI)  # Debian's one names the system's authorities
    for name in _run("chroot", str(root), "python3", "-IBc", _CARRY_PYTHON).split():
        for path in root.glob(f"usr/lib/python3/dist-packages/{name}*"):
            if path.is_dir() and path.name == name:
                shutil.copytree(path, embedded / "lib/python" / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif path.is_file() and path.name.partition(".")[0] == name:
                shutil.copy(path, embedded / "lib/python")


def _build(out: Path, version: str, architecture: str, carried: Path) -> Path:
    target = out / f"gitlab-ce_{version}_{architecture}.deb"
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        _write_tree(tree, version, carried)
        _control(tree / "DEBIAN", version, architecture)
        _run("dpkg-deb", "--root-owner-group", "-b", "-Zgzip", "-z1", str(tree), str(target))
    return target


def _write_tree(tree: Path, version: str, carried: Path) -> None:
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(HERE / "root", tree)
    shutil.copytree(carried, tree / "opt/gitlab/embedded", symlinks=True, dirs_exist_ok=True)
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
    (tree / "usr/bin").mkdir(parents=True)
    for name in COMMANDS:
        (tree / "usr/bin" / name).symlink_to(f"/opt/gitlab/bin/{name}")
    # The tree comes from a wheel, or from a checkout with any umask: set all modes.
    for path in tree.rglob("*"):
        if path.is_symlink():
            continue
        program = path.is_dir() or path.parent.name == "bin" or path == tree / "opt/gitlab/embedded/lib/ruby/ruby"
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

"""For tests of images and apps: a base image that needs no network, and the tutorial's small Flask app."""

from __future__ import annotations

import io
import json
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from provision_lab.harness import Harness

REGISTRY = "gitlab.lab.test:5555"
BASE = "python:3.10.5"  # the name in the tutorial's Dockerfile; the image holds the host's own Python
CONTAINERD_STORE = {"features": {"containerd-snapshotter": True}}  # where Docker 29 stores images by default
# A layer without files. Docker was seen to add one to an image that it built on a busy machine.
NO_FILES = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"
FLASK = ("flask", "werkzeug", "jinja2", "markupsafe", "itsdangerous", "click", "blinker")

_BASE = f"""
set -e
python=$(basename "$(readlink -f /usr/bin/python3)")  # python3.N
ssl=$(dpkg-query -W -f '${{db:Status-Abbrev}} ${{Package}}\n' 'libssl3*' | sed -n 's/^ii  //p')
rm -rf /tmp/base && mkdir -p /tmp/base/tmp
{{
  dpkg -L python3-minimal $python-minimal lib$python-minimal lib$python-stdlib libc6 zlib1g libexpat1 busybox-static $ssl
  ls -d /bin /lib /lib64
}} | grep -v -e /share/doc -e /share/man | sed 's,^/\\(bin\\|sbin\\|lib\\|lib64\\)/,/usr/\\1/,' | sort -u > /tmp/list
tar -C / --no-recursion --ignore-failed-read -cf - -T /tmp/list 2>/dev/null | tar -C /tmp/base -xf -
tar -C /tmp/base/usr/lib/$python -xf /root/flask.tar
ln -s python3 /tmp/base/usr/bin/python
ln -s busybox /tmp/base/usr/bin/sh
# The packages have no compiled files, and each new container would compile all that the app imports.
chroot /tmp/base python -c 'import flask, http.server; flask.Flask("app").test_client().get("/")'
tar -C /tmp/base -cf - . | docker import - {BASE} >/dev/null
rm -rf /tmp/base /tmp/list /root/flask.tar
"""

DOCKERFILE = f"""\
FROM {BASE}
CMD ["python","app.py"]
COPY app.py /app.py
"""

# Without the signal handler, Docker waits ten seconds for a Python that runs as process 1.
APP = """\
import os
import signal

from flask import Flask

app = Flask(__name__)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

@app.route("/")
def hello():
    return "hello world!"

@app.route("/mode")
def mode():
    return os.environ.get("MODE", "none") + " " + str(len(os.environ.get("API_TOKEN", "")))

if __name__ == "__main__":
    app.run(host="0.0.0.0")
"""

IMAGE = {"name": "root/hello_hapi", "tags": ["1.0", "latest"], "context": "hello"}
HELLO = {
    "name": "hello",
    "image": "root/hello_hapi:1.0",
    "ports": ["5001:5000"],
    "check": {"url": "http://localhost:5001/", "contains": "hello", "seconds": 20},
}


def base_image(harness: Harness, *hosts: str) -> None:
    """Creates the base image on hosts that have Docker."""
    for host in hosts:
        with tarfile.open(harness.lab.machine(host).root / "root/flask.tar", "w") as tar:
            for name in FLASK:
                spec = find_spec(name)
                assert spec is not None
                assert spec.origin is not None
                folder = Path(spec.origin).parent
                for path in (folder, *folder.parent.glob(f"{name}-*.dist-info")):
                    tar.add(path, path.name, filter=_pure)
        harness.lab.inside(host, _BASE)


def _pure(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in entry.name or entry.name.endswith(".so") else entry


def write_app(harness: Harness, text: str = "hello world!", code: str = "") -> Path:
    """Writes the app beside the inventory; `code` is inserted at its beginning."""
    folder = harness.folder / "hello"
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "app.py").write_text(code + APP.replace("hello world!", text))
    return folder


def answer(harness: Harness, host: str, path: str = "/", port: int = 5001) -> str:
    """The app's answer to a request from this machine."""
    address = harness.lab.machine(host).host.address
    return _get(f"http://{address}:{port}{path}")


def _get(url: str) -> str:
    from urllib.error import URLError
    from urllib.request import ProxyHandler, build_opener

    try:
        with build_opener(ProxyHandler({})).open(url, timeout=5) as answer:
            return str(answer.read().decode())
    except (URLError, OSError) as error:
        return f"no answer: {error}"


def container(harness: Harness, host: str, name: str = "hello") -> str:
    """The container's id, start time and whether it runs; "" when there is none."""
    form = "{{.Id}} {{.State.StartedAt}} {{.State.Running}}"
    return harness.lab.inside(host, f"docker container inspect -f '{form}' {name} 2>/dev/null || true").strip()


_STORED = "/var/opt/gitlab/gitlab-rails/shared/registry/docker/registry/v2"


def blobs(harness: Harness) -> dict[str, int]:
    """All that the registry stores on the GitLab host's disk, layers and manifests: sizes by digest."""
    listing = harness.lab.inside("gitlab", f"cd {_STORED}/blobs && find . -name data -printf '%h %s\\n'")
    return {f"sha256:{name.rpartition('/')[2]}": int(size) for name, size in map(str.split, listing.splitlines())}


def pushed(harness: Harness, repository: str, tag: str) -> dict[str, Any]:
    """What a tag names in the registry: a manifest, which has `layers`, or an index, which has `manifests`."""
    link = f"{_STORED}/repositories/{repository}/_manifests/tags/{tag}/current/link"
    digest = harness.lab.inside("gitlab", f"cat {link}").strip().removeprefix("sha256:")
    text = harness.lab.inside("gitlab", f"cat {_STORED}/blobs/sha256/{digest[:2]}/{digest}/data")
    found: dict[str, Any] = json.loads(text)
    return found


def names(harness: Harness, host: str) -> list[str]:
    """The names of all containers, stopped ones included."""
    return sorted(harness.lab.inside(host, "docker ps -a --format '{{.Names}}'").split())


def tar_of(files: dict[str, bytes]) -> bytes:
    """A tar stream of some files."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return memory.getvalue()


def apps(*tables: dict[str, Any]) -> dict[str, Any]:
    """The change that replaces the inventory's apps with these."""
    return {"apps": list(tables)}

"""Where the package's files are, the installed version, and the switches of tests.

A test makes the package fail or wait with files under /etc/gitlab-standin:

reconfigure-seconds          how long a reconfigure takes
sv-wait-seconds              how long it waits for the registry to start; the real one: 30 s
rails-boot-seconds           how long Puma needs to answer after each start; until then everything but the registry is 502
rails-runner-seconds         how long `gitlab-rails runner` needs to start; the real one: 30 to 60 s
rails-runner-exit-seconds    how long it needs to end, after everything was stored
fail-next-reconfigure        the next one fails before it changes anything; content: the message
fail-next-reconfigure-late   the next one fails after files were written and services restarted
seed.json                    users, tokens and projects (api/store.py)
settings.json                {"legacy_registration": true, "registration_token": "…"}
api-faults.json              wrong answers of the API (api/server.py)
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """The package's files below `root`; tests use another folder than `/`."""

    root: Path = Path("/")

    @property
    def gitlab_rb(self) -> Path:
        return self.root / "etc/gitlab/gitlab.rb"

    @property
    def ssl(self) -> Path:
        return self.root / "etc/gitlab/ssl"

    @property
    def trusted_certs(self) -> Path:
        return self.root / "etc/gitlab/trusted-certs"

    @property
    def node(self) -> Path:
        """What the last reconfigure applied, for check-config: the settings without their texts."""
        return self.opt / "embedded/nodes/gitlab.json"

    @property
    def first_root_password(self) -> Path:
        """Root's first password, for the API: gitlab.rb may have it, and then no other file has."""
        return self.var / "standin/root-password"

    @property
    def secrets(self) -> Path:
        """What GitLab keeps beside gitlab.rb; here only whether Let's Encrypt was enabled by itself."""
        return self.root / "etc/gitlab/gitlab-secrets.json"

    @property
    def initial_root_password(self) -> Path:
        return self.root / "etc/gitlab/initial_root_password"

    @property
    def switches(self) -> Path:
        """The folder of the tests' switches and the lab's seed."""
        return self.root / "etc/gitlab-standin"

    @property
    def opt(self) -> Path:
        return self.root / "opt/gitlab"

    @property
    def rails_rc(self) -> Path:
        """What a reconfigure writes for gitlab-rails."""
        return self.opt / "etc/gitlab-rails-rc"

    @property
    def embedded_certs(self) -> Path:
        return self.opt / "embedded/ssl/certs"

    @property
    def lock(self) -> Path:
        """The lock file that a reconfigure holds."""
        return self.opt / "embedded/cookbooks/cache/cinc-client-running.pid"

    @property
    def var(self) -> Path:
        return self.root / "var/opt/gitlab"

    @property
    def registry_config(self) -> Path:
        """The registry's configuration as the real package writes it: `storage` as in gitlab.rb."""
        return self.var / "registry/config.yml"

    @property
    def registry_run_config(self) -> Path:
        """The same configuration for the registry that the lab runs."""
        return self.var / "standin/registry.yml"

    @property
    def registry_metadata(self) -> Path:
        """The folder of the registry's metadata database; it stays when the storage changes."""
        return self.var / "standin/metadata"

    @property
    def registry_env(self) -> Path:
        return self.var / "standin/registry.env"

    @property
    def registry_cert(self) -> Path:
        return self.var / "registry/gitlab-registry.crt"

    @property
    def registry_key(self) -> Path:
        return self.var / "gitlab-rails/etc/gitlab-registry.key"

    @property
    def nginx_config(self) -> Path:
        return self.var / "nginx/conf/nginx.conf"

    @property
    def api_settings(self) -> Path:
        return self.var / "standin/api.json"

    @property
    def database(self) -> Path:
        return self.var / "standin/db.json"

    @property
    def renewal_job(self) -> Path:
        """What crond runs to renew the certificate of Let's Encrypt."""
        return self.var / "crond/letsencrypt-renew"

    @property
    def reconfigure_logs(self) -> Path:
        return self.root / "var/log/gitlab/reconfigure"

    @property
    def logs(self) -> Path:
        return self.root / "var/log/gitlab"


def write_atomically(path: Path, text: str, mode: int = 0o644) -> bool:
    """Writes `text` unless the file holds it already; whether it was written."""
    try:
        if path.read_text() == text and path.stat().st_mode & 0o777 == mode:
            return False
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    Path(name).chmod(mode)
    Path(name).rename(path)
    return True


def program_path() -> str:
    """The PATH that finds the package's own programs first, such as Ruby."""
    return f"/opt/gitlab/embedded/bin:{os.environ.get('PATH', '/usr/bin:/bin')}"


Version = tuple[int, int, int]


def parse_version(text: str) -> Version:
    """`19.3.0`, or the package's `19.3.0-ce.0`, as numbers."""
    major, minor, patch = text.split("-")[0].split(".")
    return int(major), int(minor), int(patch)


def installed(opt: Path) -> str:
    """The installed package's version, such as `19.3.0`."""
    first = (opt / "version-manifest.txt").read_text().splitlines()[0]  # "gitlab-ce 19.3.0"
    return first.split()[1]


def nested_nginx(version: Version) -> bool:
    """Whether `registry['nginx']` and `gitlab_rails['nginx']` are read. Older versions ignore them."""
    return version >= (19, 2, 0)


def registry_v2_driver(version: Version) -> bool:
    """Whether `s3` and `s3aws` are aliases of `s3_v2`, whose `regionendpoint` must be a full URI."""
    return version >= (19, 0, 0)


def consume(folder: Path, name: str) -> str | None:
    """The text of a switch that works once, or None."""
    path = folder / name
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return None
    path.unlink()
    return text or "switched to fail"


def duration(folder: Path, name: str, default: float) -> float:
    """The number of seconds in a switch."""
    try:
        return float((folder / name).read_text())
    except FileNotFoundError:
        return default


def linger(folder: Path, name: str) -> None:
    """Waits for the number of seconds in a switch such as `reconfigure-seconds`."""
    time.sleep(duration(folder, name, 0))

"""Where everything is. Tests put another folder in the place of `/`."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """The package's files under `root`."""

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
    def initial_root_password(self) -> Path:
        return self.root / "etc/gitlab/initial_root_password"

    @property
    def switches(self) -> Path:
        """Where tests lay their switches and the lab its seed."""
        return self.root / "etc/gitlab-standin"

    @property
    def opt(self) -> Path:
        return self.root / "opt/gitlab"

    @property
    def embedded_certs(self) -> Path:
        return self.opt / "embedded/ssl/certs"

    @property
    def lock(self) -> Path:
        """Held for the whole of a reconfigure."""
        return self.opt / "embedded/cookbooks/cache/cinc-client-running.pid"

    @property
    def var(self) -> Path:
        return self.root / "var/opt/gitlab"

    @property
    def registry_config(self) -> Path:
        """What a reader of the real package expects: `storage` as gitlab.rb says it."""
        return self.var / "registry/config.yml"

    @property
    def registry_run_config(self) -> Path:
        """The same, in the words of the registry that the lab really runs."""
        return self.var / "standin/registry.yml"

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
    def reconfigure_logs(self) -> Path:
        return self.root / "var/log/gitlab/reconfigure"

    @property
    def logs(self) -> Path:
        return self.root / "var/log/gitlab"


def write_atomically(path: Path, text: str, mode: int = 0o644) -> bool:
    """Writes `text` unless the file holds it already; true when it was written."""
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

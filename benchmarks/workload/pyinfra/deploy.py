"""The same sixteen things as workload/playbooks/workload.py."""

import json
from pathlib import Path

from pyinfra.operations import apt, files, server, systemd  # type: ignore[import-not-found]  # in an environment of its own

FILES = Path(__file__).parents[1] / "files"

apt.packages(name="Docker is installed", packages=["docker-ce"])
systemd.service(name="Docker runs", service="docker", running=True, enabled=True)
files.put(name="Docker's settings", src=str(FILES / "daemon.json"), dest="/etc/docker/daemon.json", mode="644")
server.user(name="The user may use Docker", user="ubuntu", groups=["docker"], append=True)
files.put(
    name="Docker trusts our registry",
    src=str(FILES / "ca.crt"),
    dest="/etc/docker/certs.d/registry.bench.test:5000/ca.crt",
    mode="644",
)
for key, value in json.loads((FILES / "gitlab_rb.json").read_text()).items():
    files.line(
        name=f"gitlab.rb holds {key}",
        path="/etc/gitlab/gitlab.rb",
        line=rf"^gitlab_rails\['{key}'\].*",
        replace=f"gitlab_rails['{key}'] = {json.dumps(value)}",
    )
files.put(
    name="The runner's template", src=str(FILES / "template.toml"), dest="/etc/gitlab-runner/template.toml", mode="644"
)
apt.packages(name="ufw is installed", packages=["ufw"])
# pyinfra has no operation for ufw.
for rule in ("22/tcp", "80/tcp", "443/tcp", "5555/tcp"):
    server.shell(name=f"allow {rule}", commands=[f"ufw allow {rule}"])
server.shell(name="enable ufw", commands=["ufw --force enable"])

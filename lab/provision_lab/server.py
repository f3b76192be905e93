"""What the lab's GitLab host is to be like, so that an inventory's own names and paths hold in the lab."""

from __future__ import annotations

from dataclasses import dataclass

_LIVE = "/etc/letsencrypt/live/gitlab.lab.test"


@dataclass(frozen=True)
class Server:
    """names        the DNS names of the host, for the certificate; every host of the lab resolves them
    fullchain, key  where its certificate lies before anything runs, as certbot leaves one; empty: nowhere
    username        the user that logs in to the registry, besides root
    project         a project that user may push to
    bucket, region  the registry's bucket in the lab's S3
    """

    names: tuple[str, ...] = ("gitlab.lab.test",)
    fullchain: str = f"{_LIVE}/fullchain.pem"
    key: str = f"{_LIVE}/privkey.pem"
    username: str = "root"
    project: str = "root/hello_hapi"
    bucket: str = "registry"
    region: str = "us-east-1"

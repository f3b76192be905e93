"""The GitLab host: its firewall, GitLab, its certificate, its registry."""

from provision import play
from provision.tasks import access, certificates, firewall, gitlab, registry

PLAYS = [play("gitlab", firewall, gitlab, certificates, registry, access)]

"""The GitLab host: GitLab, its certificate, its registry, its firewall."""

from provision.tasks import certificates, firewall, gitlab, play, registry

PLAYS = [play("gitlab", gitlab, certificates, registry, firewall)]

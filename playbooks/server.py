"""The GitLab host: GitLab, its certificate, its registry, its firewall."""

from provision import play
from provision.tasks import certificates, firewall, gitlab, registry

PLAYS = [play("gitlab", gitlab, certificates, registry, firewall)]

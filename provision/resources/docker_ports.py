"""Ports that Docker publishes: they are reached whatever ufw says.

Docker rewrites the destination before ufw's chains are asked, so that a published port is open though no rule lets it in,
or one denies it. A port that is bound to a loopback address is reached from the host alone, and does not count.
"""

from __future__ import annotations

import re
from typing import Final

from provision.shell import sh

# Asked only where ufw is on and dockerd runs: with socket activation the question would start it. Docker's client
# takes 25 ms to start, so containerd's folder of running containers is looked at first, where it is in its place.
ASK_PUBLISHED: Final = sh(
    "if grep -qs '^ENABLED=yes' /etc/ufw/ufw.conf && [ -S /run/docker.sock ] && "
    'kill -0 "$(cat /run/docker.pid 2>/dev/null)" 2>/dev/null && '
    'set -- /run/containerd/io.containerd.runtime.*/moby/* && { [ -e "$1" ] || [ ! -d "${1%%%%.runtime.*}.runtime.v2.task" ]; }; '
    "then timeout 5 docker ps --format '{{.Names}} {{.Ports}}'; fi"
)
# 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp (:::8080 before Docker 28), 127.0.0.1:9000-9001->9000-9001/udp
_PORT: Final = re.compile(r"(?P<address>\S+):(?P<port>[\d-]+)->[\d-]+/(?P<protocol>\w+)")
_LOOPBACK: Final = ("127.", "[::1]", "::1")


def published(text: str) -> list[str]:
    """What is reached from outside, by port, each as `8080/tcp (container web)`; `text` is what ASK_PUBLISHED prints."""
    found: dict[tuple[int, str], str] = {}
    for line in text.splitlines():
        container, _, ports = line.partition(" ")
        for one in _PORT.finditer(ports):
            if not one["address"].startswith(_LOOPBACK):
                start = int(one["port"].partition("-")[0])
                found[start, f"{one['port']}/{one['protocol']}"] = container
    return [f"{port} (container {found[start, port]})" for start, port in sorted(found)]

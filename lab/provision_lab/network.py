"""The lab's network: a bridge with the gateway's address, one interface per host, a free /24 of 198.18.0.0/15.

That range is reserved for tests of network devices (RFC 2544). No real network uses it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from provision_lab.run import LabError, run

RANGE = ipaddress.ip_network("198.18.0.0/15")
FIXED = {"lab": "198.18.0.0/24"}  # inventories/lab.toml names these addresses
FIRST_HOST = 10


def bridge_name(lab: str) -> str:
    """The name of the lab's bridge: at most 15 characters."""
    plain = f"pv-{lab}"
    return plain if len(plain) <= 15 else f"pv-{hashlib.sha256(lab.encode()).hexdigest()[:12]}"


def free_subnet(lab: str, taken: Iterable[str]) -> str:
    """The fixed subnet of `lab`, or the first /24 that no lab and no interface of this machine uses."""
    used = {ipaddress.ip_network(subnet) for subnet in taken}
    used |= {ipaddress.ip_network(f"{address}/24", strict=False) for address in _addresses()}
    if fixed := FIXED.get(lab):
        if ipaddress.ip_network(fixed) in used:
            raise LabError(
                f"{fixed}, the subnet of lab {lab!r}, is in use on this machine", hint="to see by what: ip address"
            )
        return fixed
    reserved = {ipaddress.ip_network(subnet) for subnet in FIXED.values()}
    for subnet in RANGE.subnets(new_prefix=24):
        if subnet not in used | reserved:
            return str(subnet)
    raise LabError(f"no /24 of {RANGE} is free", hint="to see the labs: provision lab status")


def _addresses() -> list[str]:
    links = json.loads(run("ip", "-j", "-4", "address", "show").stdout or "[]")
    return [info["local"] for link in links for info in link.get("addr_info", [])]


def add_bridge(name: str, gateway: str) -> None:
    """Creates the bridge with the gateway's address and sets it up."""
    run("ip", "link", "add", name, "type", "bridge", "forward_delay", "0")
    run("ip", "address", "add", f"{gateway}/24", "dev", name)
    run("ip", "link", "set", name, "up")


def remove_bridge(name: str) -> None:
    """Removes the bridge and its ports; no error when they do not exist."""
    if not Path("/sys/class/net", name).exists():
        return
    for port in Path("/sys/class/net", name, "brif").glob("*"):
        run("ip", "link", "delete", port.name, check=False)  # it may be removed at this moment, with its host
    run("ip", "link", "delete", name)


def allow_out(lab: str, subnet: str) -> None:
    """Allows the lab's hosts to reach beyond this machine under its address, with an nft table of the lab's own."""
    table = f"provision-{lab}"
    rules = f"add chain ip {table} out {{ type nat hook postrouting priority srcnat; }}\n"
    rules += f'add rule ip {table} out ip saddr {subnet} oifname != "{bridge_name(lab)}" masquerade\n'
    run("nft", "-f", "-", stdin=f"add table ip {table}\n{rules}")


def forget_out(lab: str) -> None:
    """Removes the lab's nft table; no error when there is none."""
    if shutil.which("nft") and f"table ip provision-{lab}\n" in run("nft", "list", "tables").stdout:
        run("nft", "delete", "table", "ip", f"provision-{lab}")


def configure_host(leader: int, address: str, gateway: str) -> None:
    """Sets the address and default route of the host's interface, from outside the host."""
    batch = f"link set lo up\nlink set host0 up\naddress add {address}/24 dev host0\nroute add default via {gateway}\n"
    run("nsenter", "-t", str(leader), "-n", "ip", "-batch", "-", stdin=batch)

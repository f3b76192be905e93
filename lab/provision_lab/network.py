"""The lab's network: a bridge with the gateway's address and one interface per host.

A lab has a free /24 of 198.18.0.0/15, or, when its hosts have IPv6 only, a free /64 of 2001:db8::/32. The first range is
reserved for tests of network devices (RFC 2544), the second for documentation (RFC 3849). No real network uses them.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from provision_lab.run import LabError, run

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
RANGE = ipaddress.ip_network("198.18.0.0/15")
RANGE6 = ipaddress.ip_network("2001:db8::/32")
FIXED = {"lab": "198.18.0.0/24"}  # inventories/lab.toml names these addresses
_FIRST_HOST = {4: 10, 6: 0x10}  # .10 and ::10
_LAST_HOST = {4: 254, 6: 0xFFFF}


def bridge_name(lab: str) -> str:
    """The name of the lab's bridge: at most 15 characters."""
    plain = f"pv-{lab}"
    return plain if len(plain) <= 15 else f"pv-{hashlib.sha256(lab.encode()).hexdigest()[:12]}"


def free_subnet(lab: str, taken: Iterable[str], *, ipv6: bool = False) -> str:
    """The fixed subnet of `lab`, or the first one that no lab and no interface of this machine uses."""
    used = {ipaddress.ip_network(subnet) for subnet in taken}
    used |= {ipaddress.ip_network(f"{address}/{_prefix(address)}", strict=False) for address in _addresses()}
    if ipv6:
        return _first_free(RANGE6, used)
    if fixed := FIXED.get(lab):
        if ipaddress.ip_network(fixed) in used:
            raise LabError(
                f"{fixed}, the subnet of lab {lab!r}, is in use on this machine", hint="to see by what: ip address"
            )
        return fixed
    reserved = {ipaddress.ip_network(subnet) for subnet in FIXED.values()}
    return _first_free(RANGE, used | reserved)


def _first_free(within: Network, used: Collection[Network]) -> str:
    prefix = _prefix(str(within.network_address))
    for subnet in within.subnets(new_prefix=prefix):
        if subnet not in used:
            return str(subnet)
    raise LabError(f"no /{prefix} of {within} is free", hint="to see the labs: provision lab status")


def host_addresses(subnet: str) -> Iterator[str]:
    """The addresses that hosts of a subnet are given, in order."""
    network = ipaddress.ip_network(subnet)
    last = min(_LAST_HOST[network.version], network.num_addresses - 2)
    return (str(network[number]) for number in range(_FIRST_HOST[network.version], last + 1))


def _prefix(address: str) -> int:
    return 64 if ":" in address else 24


def _addresses() -> list[str]:
    links = json.loads(run("ip", "-j", "address", "show").stdout or "[]")
    return [info["local"] for link in links for info in link.get("addr_info", [])]


def add_bridge(name: str, gateway: str) -> None:
    """Creates the bridge with the gateway's address and sets it up."""
    run("ip", "link", "add", name, "type", "bridge", "forward_delay", "0")
    run("ip", "address", "add", *_interface_address(gateway), "dev", name)
    run("ip", "link", "set", name, "up")


def _interface_address(address: str) -> list[str]:
    # Without `nodad` an IPv6 address can be used only after a second of duplicate address detection.
    return [f"{address}/{_prefix(address)}", *(["nodad"] if ":" in address else [])]


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


def isolate(lab: str, gateway: str, forbidden: Sequence[str] | None) -> None:
    """Refuses what the lab's hosts send beyond the lab, or to this machine's other addresses: see `isolation`."""
    run("nft", "-f", "-", stdin=isolation(lab, gateway, forbidden))


def isolation(lab: str, gateway: str, forbidden: Sequence[str] | None) -> str:
    """The commands for nft. With `forbidden` only these addresses are refused."""
    table, bridge = f"inet provision-{lab}", bridge_name(lab)
    family = "ip6" if ":" in gateway else "ip"
    if forbidden is None:
        inward = [f"fib daddr type local {family} daddr != {gateway}"]
        onward = [f'oifname != "{bridge}"']
    else:
        inward = onward = [f"ip daddr {{ {', '.join(forbidden)} }}"] if forbidden else []
    rules = f"add table {table}\n"
    for chain, hook, refused in (("inward", "input", inward), ("onward", "forward", onward)):
        rules += f"add chain {table} {chain} {{ type filter hook {hook} priority filter; }}\n"
        # Answers are allowed: this machine connects to the hosts. Neighbour discovery is too.
        allowed = ("ct state established,related", "meta l4proto ipv6-icmp")
        rules += "".join(f'add rule {table} {chain} iifname "{bridge}" {one} accept\n' for one in allowed)
        rules += "".join(f'add rule {table} {chain} iifname "{bridge}" {one} reject\n' for one in refused)
    return rules


def forget_rules(lab: str) -> None:
    """Removes the lab's nft tables; no error when there are none."""
    there = run("nft", "list", "tables").stdout if shutil.which("nft") else ""
    for family in ("ip", "inet"):
        if f"table {family} provision-{lab}\n" in there:
            run("nft", "delete", "table", family, f"provision-{lab}")


def configure_host(leader: int, address: str, gateway: str) -> None:
    """Sets the address and default route of the host's interface, from outside the host."""
    own = " ".join(_interface_address(address))
    batch = f"link set lo up\nlink set host0 up\naddress add {own} dev host0\nroute add default via {gateway}\n"
    run("nsenter", "-t", str(leader), "-n", "ip", "-batch", "-", stdin=batch)

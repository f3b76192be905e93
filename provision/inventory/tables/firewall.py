"""[firewall]: ufw."""

import re
from dataclasses import dataclass
from typing import Any

from provision.inventory.tables.base import Table

_PORTS = re.compile(r"(\d{1,5})(?::(\d{1,5}))?(?:/(tcp|udp))?")
_EXPECTED = 'expected "80/tcp", "6000:6007/udp", a port, or { port = "80/tcp", from = ["10.0.0.0/8"] }'


@dataclass(frozen=True)
class Allow:
    """One allow rule of the inventory."""

    ports: str
    """A port, or a range as ufw writes it: `6000:6007`."""
    protocol: str | None = None
    """tcp, udp, or None for both."""
    sources: tuple[str, ...] = ()
    """Addresses and networks that are allowed; empty: any."""

    def __str__(self) -> str:
        """The ports as ufw writes them: `80/tcp`."""
        return f"{self.ports}/{self.protocol}" if self.protocol else self.ports

    def covers(self, port: int) -> bool:
        """Whether the rule is about this TCP port."""
        first, _, last = self.ports.partition(":")
        return self.protocol != "udp" and int(first) <= port <= int(last or first)

    def as_setting(self) -> str | dict[str, object]:
        """The rule as written in the inventory."""
        return {"port": str(self), "from": list(self.sources)} if self.sources else str(self)

    @classmethod
    def parse(cls, value: object) -> "Allow":
        """Reads an entry of `allow`. Raises ValueError for a rule that ufw would refuse."""
        if isinstance(value, Allow):
            return value
        table = value if isinstance(value, dict) else {"port": value}
        port = table.get("port")
        if isinstance(port, bool) or not isinstance(port, str | int) or table.keys() - {"port", "from"}:
            raise ValueError(f"{_EXPECTED}, got {value!r}")
        parts = _PORTS.fullmatch(str(port))
        if parts is None:
            raise ValueError(f"{_EXPECTED}, got {port!r}")
        first, last, protocol = parts.groups()
        if not 1 <= int(first) <= int(last or first) <= 65535:
            raise ValueError(f"expected ports from 1 to 65535, the lower one first, got {port!r}")
        if last and not protocol:
            raise ValueError(f'a range needs a protocol: expected "{port}/tcp" or "{port}/udp"')
        ports = f"{int(first)}:{int(last)}" if last else str(int(first))
        return cls(ports, protocol, _sources(table.get("from", ())))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(cls.parse)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        port = {"type": ["string", "integer"], "pattern": f"^{_PORTS.pattern}$", "minimum": 1, "maximum": 65535}
        addresses = {"type": "array", "items": {"type": "string"}}
        table = {"type": "object", "properties": {"port": port, "from": addresses}, "required": ["port"]}
        return {"anyOf": [port, {**table, "additionalProperties": False}]}


class Firewall(Table, optional=True):
    """The ports that ufw allows, on GitLab and runner hosts. SSH's port is allowed too, unless a rule already allows this connection; the ports of the registry and of ACME certificates follow from their settings."""

    enable: bool = False
    """true: ufw is enabled if it is off. false: rules are added, and ufw's state is unchanged."""
    allow: tuple[Allow, ...] = ()
    """Allowed ports: "80/tcp", "6000:6007/udp", a number for both protocols, or a table with `from`."""


def _sources(value: object) -> tuple[str, ...]:
    import ipaddress  # slow to import; few inventories need it

    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple):
        raise ValueError(f'expected from = ["10.0.0.0/8"], got {value!r}')
    try:
        return tuple(str(ipaddress.ip_network(one)) for one in values)
    except ValueError as error:
        raise ValueError(f"from: expected addresses and networks: {error}") from None

"""Output comes in pieces, cut anywhere; people read lines."""

from __future__ import annotations

from provision.report.clean import printable_lines


class Pieces:
    """Puts each host's pieces together and gives out whole lines, harmless to show."""

    def __init__(self) -> None:
        self._begun: dict[str, str] = {}

    def take(self, host: str, text: str) -> list[str]:
        """The lines that this piece makes whole; empty ones left out."""
        whole, newline, rest = (self._begun.get(host, "") + text).rpartition("\n")
        self._begun[host] = rest
        return [line for line in printable_lines(whole) if line] if newline else []

    def rest(self) -> list[tuple[str, str]]:
        """Host and line for what never ended in a newline."""
        left = [(host, line) for host, text in self._begun.items() for line in printable_lines(text) if line]
        self._begun.clear()
        return left

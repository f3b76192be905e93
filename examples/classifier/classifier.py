"""Finds the category of a product from its description: a naive Bayes classifier over words."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from math import log
from pathlib import Path

_WORD = re.compile(r"[^\W\d_]{3,}")


def words(text: str) -> list[str]:
    """The words of a text in lower case, those of three letters and more."""
    return _WORD.findall(text.lower())


class Classifier:
    """Learns from pairs of category and description. A category that was never seen is never found."""

    def __init__(self, examples: Iterable[tuple[str, str]]) -> None:
        self._words: dict[str, Counter[str]] = defaultdict(Counter)
        self._examples: Counter[str] = Counter()
        for category, description in examples:
            self._examples[category] += 1
            self._words[category].update(words(description))
        if not self._examples:
            raise ValueError("there are no examples to learn from")
        self._known = len({word for counted in self._words.values() for word in counted})

    @classmethod
    def from_file(cls, path: Path) -> Classifier:
        """Learns from a CSV file with the columns category and description."""
        with path.open(encoding="utf-8", newline="") as lines:
            return cls((row["category"], row["description"]) for row in csv.DictReader(lines))

    def category(self, description: str) -> str:
        """The most probable category."""
        return max(sorted(self._examples), key=lambda one: self._score(one, words(description)))

    def _score(self, category: str, found: list[str]) -> float:
        """The logarithm of the probability, up to a constant. A word that is new counts as seen once."""
        counted = self._words[category]
        total = counted.total() + self._known
        return log(self._examples[category]) + sum(log((counted[word] + 1) / total) for word in found)

"""Files of real programs that tests read; tests/data/README.md gives their sources."""

from pathlib import Path

DATA = Path(__file__).parents[1] / "data"

"""Measures `provision` and other tools on hosts with nothing to change. `python -m benchmarks` writes docs/performance.md."""

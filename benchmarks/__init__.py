"""How fast `provision` is, beside others, on hosts with nothing to change. `python -m benchmarks` writes docs/performance.md."""

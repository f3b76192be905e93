"""The package's programs. They run on the lab host with its own Python: the standard library and cryptography only."""

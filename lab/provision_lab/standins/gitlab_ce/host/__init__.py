"""The programs of the package, run on the lab host by its own Python: the standard library and cryptography alone."""

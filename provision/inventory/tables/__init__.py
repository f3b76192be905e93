"""The inventory's tables as typed, frozen models. Field docstrings are the keys' documentation and the schema's."""

"""For tests of the resources that tasks yield: parts of inventories, and what is looked for in the result."""

from __future__ import annotations

from typing import Any

from provision.resources import Resource

S3 = """
[registry.s3]
bucket = "registry"
region = "nyc3"
regionendpoint = "https://nyc3.example.com"
accesskey = "the-access-key"
secretkey = "the-secret-key"
"""
LOGIN = '[registry.login]\nusername = "sammy"\npassword = "the-login-password"\nimage = "sammy/hello"\n'
REGISTRY = f'[registry]\nexternal_url = "https://gitlab.example.com:5555"\n{LOGIN}'


def only(resources: tuple[Resource, ...], kind: type) -> Any:
    """The one resource of a kind."""
    (found,) = [one for one in resources if isinstance(one, kind)]
    return found


def labels(resources: tuple[Resource, ...]) -> list[str]:
    """The resources' names, in order."""
    return [one.label for one in resources]

"""The registry's configuration, twice: as omnibus writes it, and in the words of the registry that runs here. Pure.

The lab runs distribution 2.8, whose S3 driver is `s3`; GitLab's own registry has `s3_v2`, of which `s3` and
`s3aws` are other names from 19.0.
"""

from __future__ import annotations

import json
from typing import Any

from .derive import Registry
from .versions import Version, registry_v2_driver

S3_NAMES = ("s3", "s3aws", "s3_v2")
NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing answers

_PAGE = """\
version: 0.1
log:
  level: {level}
  formatter: {formatter}
  fields:
    service: registry
    environment: production
storage: {storage}
http:
  addr: {address}
  secret: "{secret}"
  headers:
    X-Content-Type-Options: [nosniff]
{debug}health:
  storagedriver:
    enabled: {health}
    interval: 10s
    threshold: 3
auth:
  token:
    realm: {realm}/jwt/auth
    service: container_registry
    issuer: {issuer}
    rootcertbundle: {bundle}
    autoredirect: {autoredirect}
validation:
  disabled: {validation}
"""


def render(registry: Registry, *, realm: str, secret: str, bundle: str, issuer: str) -> str:
    """config.yml as omnibus writes it: `storage` as JSON, verbatim."""
    return _page(registry, {**registry.storage, **registry.storage_extras}, realm, secret, bundle, issuer)


def render_to_run(registry: Registry, version: Version, *, realm: str, secret: str, bundle: str, issuer: str) -> str:
    """The same for distribution 2.8."""
    storage: dict[str, Any] = {}
    for name, value in {**registry.storage, **registry.storage_extras}.items():
        if name in S3_NAMES and isinstance(value, dict):
            storage["s3"] = _s3(value, version)
        else:
            storage[name] = value
    return _page(registry, storage, realm, secret, bundle, issuer)


def _s3(parameters: dict[str, Any], version: Version) -> dict[str, Any]:
    """An endpoint without a scheme is one that `s3_v2` never reaches: the storage check turns `/v2/` into 503."""
    endpoint = str(parameters.get("regionendpoint") or "")
    if endpoint and "://" not in endpoint and registry_v2_driver(version):
        return {**parameters, "regionendpoint": NOWHERE}
    return dict(parameters)


def _page(registry: Registry, storage: dict[str, Any], realm: str, secret: str, bundle: str, issuer: str) -> str:
    own = registry.settings
    debug = f"  debug:\n    addr: {registry.debug_address}\n" if registry.debug_address else ""
    page = _PAGE.format(
        level=own.get("log_level") or "info",
        formatter=own.get("log_formatter") or "text",
        storage=json.dumps(storage, separators=(",", ":")),
        address=registry.address,
        secret=secret,
        debug=debug,
        health=_yaml(own.get("health_storagedriver_enabled") is not False),
        realm=realm,
        issuer=issuer,
        bundle=bundle,
        autoredirect=_yaml(bool(own.get("autoredirect"))),
        validation=_yaml(not own.get("validation_enabled")),
    )
    for key in ("middleware", "notifications"):
        if own.get(key):
            page += f"{key}: {json.dumps(own[key])}\n"
    return page


def _yaml(value: bool) -> str:
    return "true" if value else "false"

"""The configuration of nginx and of the registry, as text; nothing here reads or writes files.

The registry's configuration has two forms: as omnibus writes it, and for the registry that runs here. The lab runs
distribution 2.8, whose S3 driver is `s3`. GitLab's own registry has `s3_v2`, of which `s3` and `s3aws` are aliases
from 19.0.
"""

from __future__ import annotations

import json
from typing import Any

from .layout import Version, registry_v2_driver
from .letsencrypt import CHALLENGES
from .settings import Registry, Site, Wanted

API = "127.0.0.1:8080"

_HEAD = """\
# This file is managed by gitlab-ctl. Manual changes will be
# erased! To change the contents below, edit /etc/gitlab/gitlab.rb
# and run `sudo gitlab-ctl reconfigure`.
user www-data;
worker_processes 2;
error_log /var/log/gitlab/nginx/error.log error;
pid /var/opt/gitlab/nginx/nginx.pid;
daemon off;

events { worker_connections 10240; }

http {
  # Without the query, which may hold a runner's token.
  log_format gitlab '$remote_addr - $remote_user [$time_local] "$request_method $uri $server_protocol" $status $body_bytes_sent';
  access_log /var/log/gitlab/nginx/access.log gitlab;
  server_tokens off;
  keepalive_timeout 65;
  server_names_hash_bucket_size 128;
  proxy_http_version 1.1;
  proxy_read_timeout 3600;
  proxy_connect_timeout 300;
  types_hash_max_size 4096;
"""

_PROXY = """\
      proxy_set_header Host $http_host;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto {proto};
      proxy_set_header Connection "";
"""


# What is answered while Puma does not listen. nginx does Workhorse's part here. Source: workhorse's internal/upstream/
# routes.go, badgateway/roundtripper.go, staticpages/error_pages.go; public/502.html.
_DOWN = {
    "probe": (
        r"~ ^{path}/-/(readiness|liveness)$",
        "application/json",
        """'{"error":"Bad Gateway","status":502}\\n'""",
    ),
    "health": ("= {path}/-/health", "text/plain", "'Bad Gateway\\n'"),
    "api": ("{path}/api/", "text/plain", "'GitLab is not responding'"),
    "page": (
        "{path}/",
        "text/html",
        "'<!DOCTYPE html><html><head><title>GitLab is not responding (502)</title></head></html>\\n'",
    ),
}


def render_nginx(wanted: Wanted) -> str:
    """nginx.conf of the front end, with one server for each site."""
    servers = [_application(wanted.external)]
    registry = wanted.registry
    if registry and registry.site:
        servers.append(_registry_site(registry.site, registry.address))
    return _HEAD + "".join(servers) + "}\n"


def _application(site: Site) -> str:
    proxy = _PROXY.format(proto="https" if site.https else "http")
    body = ""
    for name, (pattern, kind, text) in _DOWN.items():
        body += f"""
    location {pattern.format(path=site.path)} {{
      proxy_pass http://{API};
      error_page 502 @{name}_down;
{proxy}    }}
    location @{name}_down {{
      default_type {kind};
      return 502 {text};
    }}
"""
    return _redirect(site) + _server(site, body)


def _registry_site(site: Site, address: str) -> str:
    proxy = _PROXY.format(proto="https" if site.https else "http")
    body = f"""
    chunked_transfer_encoding on;
    location / {{
      proxy_pass http://{address};
      proxy_buffering off;
      proxy_request_buffering off;
{proxy}    }}
"""
    return _redirect(site) + _server(site, body)


def _server(site: Site, body: str) -> str:
    tls = ""
    if site.https:
        tls = f"""
    ssl_certificate {_quoted(site.certificate)};
    ssl_certificate_key {_quoted(site.key)};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:SSL:10m;
"""
    listen = "\n".join(f"    listen {a}:{site.port}{' ssl' if site.https else ''};" for a in site.listen)
    return f"""
  server {{
{listen}
    server_name {site.host};
    client_max_body_size {site.max_body};
{tls}{body}  }}
"""


def _redirect(site: Site) -> str:
    if site.redirect_port is None:
        return ""
    listen = "\n".join(f"    listen {address}:{site.redirect_port};" for address in site.listen)
    return f"""
  server {{
{listen}
    server_name {site.host};
    location /.well-known/acme-challenge/ {{
      root {CHALLENGES};
    }}
    location / {{
      return 301 https://{site.host}:{site.port}$request_uri;
    }}
  }}
"""


def _quoted(path: str) -> str:
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


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


def render_registry(registry: Registry, *, realm: str, secret: str, bundle: str, issuer: str) -> str:
    """config.yml as omnibus writes it: `storage` and `database` as JSON, unchanged."""
    page = _page(registry, {**registry.storage, **registry.storage_extras}, realm, secret, bundle, issuer)
    database = registry.database
    return f"{page}database: {json.dumps(database, separators=(',', ':'))}\n" if database else page


def render_registry_to_run(
    registry: Registry, version: Version, *, realm: str, secret: str, bundle: str, issuer: str
) -> str:
    """The same configuration for distribution 2.8."""
    storage: dict[str, Any] = {}
    for name, value in {**registry.storage, **registry.storage_extras}.items():
        if name in S3_NAMES and isinstance(value, dict):
            storage["s3"] = _s3(value, version)
        else:
            storage[name] = value
    return _page(registry, storage, realm, secret, bundle, issuer)


def _s3(parameters: dict[str, Any], version: Version) -> dict[str, Any]:
    """The parameters of the driver. `s3_v2` cannot reach an endpoint without a scheme, and `/v2/` answers 503 then."""
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

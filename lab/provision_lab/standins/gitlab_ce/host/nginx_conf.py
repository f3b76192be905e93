"""nginx.conf of the front end: one server per site. Pure."""

from __future__ import annotations

from .derive import Site, Wanted

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
  # Without the query: a runner's token may stand in it.
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


def render(wanted: Wanted) -> str:
    """The whole file."""
    servers = [_application(wanted.external)]
    registry = wanted.registry
    if registry and registry.site:
        servers.append(_registry(registry.site, registry.address))
    return _HEAD + "".join(servers) + "}\n"


def _application(site: Site) -> str:
    proxy = _PROXY.format(proto="https" if site.https else "http")
    body = f"""
    location {site.path}/ {{
      proxy_pass http://{API};
{proxy}    }}
"""
    return _redirect(site) + _server(site, body)


def _registry(site: Site, address: str) -> str:
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
    return 301 https://{site.host}:{site.port}$request_uri;
  }}
"""


def _quoted(path: str) -> str:
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'

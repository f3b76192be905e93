"""Which image a tag stands for in a registry, asked from the host, which reaches it as Docker does.

One HEAD for the manifest, with the token that the registry asks for: some 50 ms, and Docker Hub does not count it. Sources:
the distribution API, "Token authentication" and "HEAD manifest".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from provision.image_name import HUB, Reference
from provision.secret import Secret
from provision.url import Url

# Shell text: `digest_of BASE REPOSITORY TAG USER PASSWORD` prints the digest, `absent`, or `? REASON`.
DIGEST_OF: Final = r"""
quoted() { printf '%%s' "$1" | sed 's/[\\"]/\\&/g'; }
digest_of() (
  folder="/etc/docker/certs.d/${1#*://}" url="$1/v2/$2/manifests/$3"
  ask() { curl -sS -K - --max-time 15 ${ca:+--cacert "$ca"} "$@" 2>&1; }
  ca=; [ ! -e "$folder/ca.crt" ] || ca="$folder/ca.crt"
  kinds='application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json'
  kinds="$kinds, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
  credentials=; [ -z "$4" ] || credentials="user = \"$(quoted "$4:$5")\""
  said=$(printf 'header = "Accept: %%s"\n' "$kinds" | ask -I -- "$url") || { echo "? $said"; exit; }
  field() { printf '%%s\n' "$said" | tr -d '\r' | sed -n "s/^[Ww][Ww][Ww]-[Aa]uthenticate: *$1.*/\1/p" | head -n 1; }
  case $said in
    HTTP/*' 401'*)
      realm=$(field '[Bb]earer .*realm="\([^"]*\)"') service=$(field '.*service="\([^"]*\)"')
      if [ -n "$realm" ]; then
        token=$(printf '%%s\n' "$credentials" | ask -G --data-urlencode "service=$service" --data-urlencode "scope=repository:$2:pull" -- "$realm")
        token=$(printf '%%s' "$token" | sed -n 's/.*"token" *: *"\([^"]*\)".*/\1/p;t;s/.*"access_token" *: *"\([^"]*\)".*/\1/p')
        [ -n "$token" ] || { echo "? its login is refused"; exit; }
        credentials="header = \"Authorization: Bearer $token\""
      fi
      said=$(printf 'header = "Accept: %%s"\n%%s\n' "$kinds" "$credentials" | ask -I -- "$url") || { echo "? $said"; exit; } ;;
  esac
  case $said in
    HTTP/*' 200'*) printf '%%s\n' "$said" | tr -d '\r' | sed -n 's/^[Dd]ocker-[Cc]ontent-[Dd]igest: *//p' | tail -n 1 ;;
    HTTP/*' 404'*) echo absent ;;
    HTTP/*' 401'* | HTTP/*' 403'*) echo '? its login is refused, or it may not read there' ;;
    *) echo "? it answers $(printf '%%s' "$said" | head -n 1 | tr -d '\r')" ;;
  esac
)
"""
_HUB_API: Final = "https://registry-1.docker.io"


@dataclass(frozen=True)
class Registry:
    """Where an image is pushed to, or an app's image pulled from. `url` is its origin, "" where there is none."""

    url: str = ""
    user: str = ""
    password: Secret = field(default_factory=lambda: Secret(""))


def api_of(reference: Reference, own: Url | None) -> str:
    """Where a reference's registry answers; `own` is the registry of the inventory. "" for a reference without registry."""
    if not reference.domain:
        return ""
    if reference.domain == HUB:
        return _HUB_API
    if own is not None and reference.domain == own.authority:
        return own.origin
    url = Url.parse(f"https://{reference.domain}")
    return f"http://{reference.domain}" if url.host == "localhost" else url.origin  # Docker takes it without TLS

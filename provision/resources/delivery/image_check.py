"""An image can be logged in for, pushed, pulled and deleted, from this host.  Sources: docker-login(1), the distribution API.

Layer by layer, from the name to the image; the first that is broken is named with its remedy. The
Docker CLI does the work with a throw-away DOCKER_CONFIG on a memory file system, as it keeps logins in the clear.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from provision.host.files import ASK_STATE, read_state
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.secret import Secret, reveal
from provision.shell import sh
from provision.url import Url

_STATE = "verified"
# Whether the name is resolved and the port opens: in 3 ms instead of curl's 12. What answers there is asked on the
# GitLab host in the same run, and what is trusted here is laid by other resources.
_LOOK = "timeout 5 bash -c ': 2>/dev/null <>/dev/tcp/$0/$1' %s %s"
_PROVE = """
host=%s port=%s base=%s registry=%s user=%s image=%s ca=%s
IFS= read -r password
fail() { printf '%%s: %%s\\n' "$1" "$2" >&2; [ -z "$3" ] || printf '%%s\\n' "$3" >&2; exit 1; }
work=$(mktemp -d /dev/shm/provision-verify.XXXXXX) && export DOCKER_CONFIG="$work/docker" && mkdir "$DOCKER_CONFIG" || exit 1
tag="provision-$(hostname)-$(od -An -N6 -tx1 /dev/urandom | tr -d ' \\n')"
ref="$registry/$image:$tag"
trap 'docker image rm -f "$ref" >/dev/null 2>&1; docker logout "$registry" >/dev/null 2>&1; rm -rf -- "$work"' EXIT
echo 'name';  address=$(getent ahosts "$host") || fail name "$host is not resolved on this host" 'give it an address in DNS or /etc/hosts'
address=${address%%%%[[:space:]]*}
set --; [ ! -e "$ca" ] || set -- --cacert "$ca"
said=$(curl -sS -o /dev/null -D "$work/headers" --max-time 20 "$@" -- "$base/v2/" 2>&1); code=$?
echo 'connection'
case $code in
  0) ;;
  7) fail tcp "$host ($address) refuses port $port" 'is the registry up (gitlab-ctl status) and its port open (provision firewall)?' ;;
  28) fail tcp "$host ($address) port $port does not answer" 'a firewall on the way drops it: provision firewall, and your provider has one too' ;;
  60) fail tls "its certificate is not trusted: $said" 'name its CA in registry.certificate.ca and run provision docker' ;;
  35) fail tls "TLS cannot be agreed on: $said" 'is it https that answers on this port?' ;;
  *) fail connection "$said" "try on the host: curl -v $base/v2/" ;;
esac
echo '/v2/'
grep -q '^HTTP/[0-9.]* 401' "$work/headers" || fail /v2/ "answers $(head -n 1 "$work/headers")" 'look at: gitlab-ctl tail registry'
realm=$(tr -d '\\r' < "$work/headers" | sed -n 's/^[Ww][Ww][Ww]-[Aa]uthenticate:.*realm="\\([^"]*\\)".*service="\\([^"]*\\)".*/\\1?service=\\2/p')
[ -n "$realm" ] || fail /v2/ 'names no place for tokens' 'provision registry sets it right'
echo 'docker login'
said=$(printf '%%s' "$password" | docker login -u "$user" --password-stdin "$registry" 2>&1) || fail login "$said" 'check registry.login and that external_url is reached from here'
echo 'docker push'
mkdir "$work/root" && printf '%%s\\n' "$tag" > "$work/root/provision-verify"
said=$(tar -C "$work/root" -c . | docker import - "$ref" 2>&1) || fail image "$said" 'does docker work on this host? docker info'
said=$(docker push "$ref" 2>&1) || fail push "$(printf '%%s' "$said" | tail -n 3)" 'may this user push there (project, role), and can the registry write its storage?'
digest=$(docker image inspect -f '{{range .RepoDigests}}{{println .}}{{end}}' "$ref" | sed -n 's/.*@//p' | head -n 1)
docker image rm -f "$ref" >/dev/null 2>&1
echo 'docker pull'
said=$(docker pull "$ref" 2>&1) || fail pull "$(printf '%%s' "$said" | tail -n 3)" 'it was pushed a moment ago: can clients reach the storage? (redirect: disable)'
docker image inspect -f '{{range .RepoDigests}}{{println .}}{{end}}' "$ref" | grep -qF "$digest" || fail pull "another image came back than $digest" 'is there a cache between?'
echo 'delete'
quote() { printf '%%s' "$1" | sed 's/[\\\\"]/\\\\&/g'; }
token=$(printf 'user = "%%s:%%s"\\n' "$(quote "$user")" "$(quote "$password")" | curl -sS -K - --max-time 20 "$@" -G --data-urlencode "scope=repository:$image:pull,push,delete,*" -- "$realm" 2>&1 | sed -n 's/.*"token" *: *"\\([^"]*\\)".*/\\1/p')
[ -n "$token" ] || fail delete 'no token to delete with was given' 'may this user delete in this project?'
code=$(printf 'header = "Authorization: Bearer %%s"\\n' "$token" | curl -sS -K - -o "$work/body" -w '%%{http_code}' --max-time 20 "$@" -X DELETE -- "$base/v2/$image/manifests/$digest" 2>&1)
[ "$code" = 202 ] || fail delete "HTTP $code $(head -c 300 "$work/body" 2>/dev/null)" 'set registry.storage delete enabled, or delete the tag by hand'
"""


@dataclass(frozen=True)
class ImageProof(Resource):
    """The proof, taken when it is asked for, when something changed, or when none of these settings is on record.

    ca       the CA file on the host, if one was declared
    context  whatever else the proof rests on: a change of it makes a new proof due
    """

    url: Url
    user: str
    password: Secret
    image: str
    ca: str
    always: bool = False
    context: str = ""

    @property
    def label(self) -> str:
        return f"ImageProof {self.url}"

    def probe(self) -> Probe:
        look = sh(_LOOK, self.url.host, self.url.port)
        return Probe({"look": look, "state": ASK_STATE})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        opens = seen["look"].code == 0
        if opens and not self.always and read_state(seen["state"].text).get(_STATE) == self._fingerprint():
            return
        url, registry = self.url, self.url.authority
        command = sh(_PROVE, url.host, url.port, str(url), registry, self.user, self.image, self.ca)
        yield Change(
            f"prove {registry}/{self.image}: name, connection, /v2/, login, push, pull, delete",
            command.reading(reveal(self.password) + "\n"),
            "run",
            remember={_STATE: self._fingerprint()},
            deadline=300,
            leaves=False,
        )

    def _fingerprint(self) -> str:
        return hashlib.sha256(
            "\0".join([str(self.url), self.user, self.image, self.ca, self.context]).encode()
        ).hexdigest()[:16]

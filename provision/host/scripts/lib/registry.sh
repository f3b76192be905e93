#!/bin/sh
# Requests to a container registry, as Docker sends them. Credentials reach curl on standard input.
# Sources: the distribution API, "Token authentication" and "HEAD manifest".
#
# The registry's answer names the address for tokens (the realm), and root asks there with the login. So the address must
# be at a host that is expected, and have TLS if the registry has it. No redirect is followed.

# use_registry BASE CA HOSTS DIRECT: what the other functions use.
#   BASE    the registry's URL
#   CA      a file that may not exist. As in Docker, it is trusted besides the system's certificates, for the registry and
#           for its address for tokens (moby's registry/auth.go uses one TLS configuration for both)
#   HOSTS   hosts that may give tokens besides the registry's own, separated by spaces, in lower case
#   DIRECT  yes: without a proxy, as for a service of the same network
use_registry() {
  base=$1 ca=$2 token_hosts="$(host_of "$1") $3" direct=$4
  [ -e "$ca" ] || ca=
  [ "$direct" = yes ] || direct=
  case $base in https://*) protocols='=https' ;; *) protocols='=http,https' ;; esac
}

# ask_registry ARGUMENT…: a request by curl, which reads a configuration on standard input.
ask_registry() {
  curl -sS -g -K - --proto "$protocols" --proto-redir "$protocols" --max-time 15 \
    ${ca:+--cacert "$ca" --capath /etc/ssl/certs} ${direct:+--noproxy '*'} "$@"
}

# host_of URL: its host in lower case. Nothing for an authority with a user, or with anything else that is no host.
host_of() {
  case $1 in http://* | https://*) ;; *) return ;; esac
  authority=${1#*://}
  authority=${authority%%[/?#]*}
  case $authority in
    *[!]A-Za-z0-9.:[_-]*) ;;
    \[*) printf '%s]' "${authority%%\]*}" ;;
    *) printf '%s' "${authority%%:*}" ;;
  esac | tr '[:upper:]' '[:lower:]'
}

# challenge_of HEADERS PATTERN: what the group in PATTERN matches in the header WWW-Authenticate.
challenge_of() {
  printf '%s\n' "$1" | tr -d '\r' | sed -n "s/^[Ww][Ww][Ww]-[Aa]uthenticate: *$2.*/\1/p" | head -n 1
}
realm_of() { challenge_of "$1" '[Bb]earer .*realm="\([^"]*\)"'; }
service_of() { challenge_of "$1" '.*service="\([^"]*\)"'; }

# require_realm REALM: fails, and prints the reason, if tokens may not be asked there.
require_realm() {
  case $1$protocols in
    https://* | http://*=http,https) ;;
    *) echo "the registry sends clients to $1 for a token, which is no address with TLS: it was not asked"; return 1 ;;
  esac
  host=$(host_of "$1")
  case " $token_hosts " in *" ${host:-?} "*) return ;; esac
  echo "the registry sends clients to $1 for a token, which is another server than expected: it was not asked"
  return 1
}

# login_line USER PASSWORD: a line of curl's configuration; nothing without a USER.
login_line() { [ -z "$1" ] || printf 'user = "%s"\n' "$(printf '%s' "$1:$2" | sed 's/[\\"]/\\&/g')"; }

# token_from REALM SERVICE SCOPE USER PASSWORD: prints the token, if there is one. Returns 114 if the server is starting, as
# GitLab is while it answers 502. Other characters than a token has could become further lines of curl's configuration.
# Source: RFC 6750, b68token.
token_from() {
  answer=$(login_line "$4" "$5" |
    ask_registry -G -w '%{http_code}' --data-urlencode "service=$2" --data-urlencode "scope=$3" -- "$1" 2>/dev/null |
    head -c 100000 | tr -d '\r\n')
  case $answer in *502 | *503) echo "$1 answers ${answer##*[!0-9]}" >&2; return 114 ;; esac
  token=$(printf '%s\n' "$answer" | sed -n 's/.*"token" *: *"\([^"]*\)".*/\1/p;t;s/.*"access_token" *: *"\([^"]*\)".*/\1/p')
  case $token in *[!A-Za-z0-9._~+/=-]*) ;; *) printf '%s' "$token" ;; esac
}

manifest_kinds='application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json'
manifest_kinds="$manifest_kinds, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"

# earlier_image_problem REPOSITORY TOKEN WORK: whether the data of one image in the repository can be pulled, without a download.
# Fails, and prints what is missing. Succeeds without an image; tags of checks do not count.
# WORK: a folder.
# The registry answers for a layer that its storage has 200, or sends clients there.
earlier_image_problem() {
  header="header = \"Authorization: Bearer $2\"" folder=$3
  # get PATH: prints the answer; its status is in a file, since this runs in a subshell.
  get() {
    printf '%s\nheader = "Accept: %s"\n' "$header" "$manifest_kinds" |
      ask_registry -o "$folder/answer" -w '%{http_code}' -- "$base/v2/$1" > "$folder/status" 2>/dev/null
    head -c 4194304 "$folder/answer" 2>/dev/null | tr -d ' \n\t'
  }
  digests() { grep -ao '"digest":"sha256:[0-9a-f]*"' | cut -d '"' -f 4; }
  tags=$(get "$1/tags/list" | sed -n 's/.*"tags":\[\([^]]*\)\].*/\1/p' | tr ',' '\n' | tr -d '"')
  # A tag without a manifest is left over from a deletion.
  for tag in $(printf '%s\n' "$tags" | grep -ax '[A-Za-z0-9_][A-Za-z0-9_.-]*' | grep -av '^provision-' | head -n 5); do
    manifest=$(get "$1/manifests/$tag")
    case $manifest in *'"manifests":['*) manifest=$(get "$1/manifests/$(printf '%s' "$manifest" | digests | head -n 1)") ;; esac
    case $(cat "$folder/status") in
      200) ;;
      404) continue ;;
      *) echo "$1:$tag is listed, and its manifest is answered with HTTP $(cat "$folder/status")"; return 1 ;;
    esac
    for digest in $(printf '%s' "$manifest" | digests | head -n 50); do
      code=$(printf '%s\n' "$header" | ask_registry -I -o /dev/null -w '%{http_code}' -- "$base/v2/$1/blobs/$digest" 2>/dev/null)
      case $code in 200 | 302 | 307) ;; *) echo "$1:$tag is listed, and $digest of it is answered with HTTP $code"; return 1 ;; esac
    done
    return 0
  done
}

# digest_of BASE REPOSITORY TAG USER PASSWORD HOSTS DIRECT: prints the digest, `absent`, or `? REASON`. Returns 114 if the
# registry or GitLab is starting.
#
# One HEAD request for the manifest with the token that the registry requires: about 50 ms, and Docker Hub does not count
# it as a pull. A CA in Docker's certs.d is used.
digest_of() (
  use_registry "$1" "/etc/docker/certs.d/${1#*://}/ca.crt" "$6" "$7"
  url="$1/v2/$2/manifests/$3"
  credentials=$(login_line "$4" "$5")
  answer=$(printf 'header = "Accept: %s"\n' "$manifest_kinds" | ask_registry -I -- "$url" 2>&1) || { echo "? $answer"; exit; }
  case $answer in
    HTTP/*' 401'*)
      realm=$(realm_of "$answer")
      if [ -n "$realm" ]; then
        reason=$(require_realm "$realm") || { echo "? $reason"; exit; }
        token=$(token_from "$realm" "$(service_of "$answer")" "repository:$2:pull" "$4" "$5")
        [ $? != 114 ] || { echo "? GitLab is not ready: $realm"; exit 114; }
        [ -n "$token" ] || { echo "? the login is refused"; exit; }
        credentials="header = \"Authorization: Bearer $token\""
      fi
      answer=$(printf 'header = "Accept: %s"\n%s\n' "$manifest_kinds" "$credentials" | ask_registry -I -- "$url" 2>&1) ||
        { echo "? $answer"; exit; } ;;
  esac
  case $answer in
    HTTP/*' 200'*) printf '%s\n' "$answer" | tr -d '\r' | sed -n 's/^[Dd]ocker-[Cc]ontent-[Dd]igest: *//p' | tail -n 1 ;;
    HTTP/*' 404'*) echo absent ;;
    HTTP/*' 401'* | HTTP/*' 403'*) echo '? the login is refused, or has no read access there' ;;
    *)
      reason="the registry answers $(printf '%s' "$answer" | head -n 1 | tr -d '\r')"
      echo "? $reason"
      case $answer in HTTP/*' 502'* | HTTP/*' 503'*) echo "$1: $reason" >&2; exit 114 ;; esac ;;
  esac
)

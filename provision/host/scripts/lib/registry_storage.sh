#!/bin/sh
# Requests to the registry on the GitLab host itself: the check of its storage by use, and what it has. Needs lib/services.sh.

# use_own_registry CONFIG RAILS: finds the registry's "$address", and what tokens are signed with. Makes a folder "$work",
# which the caller's shell removes when it ends. Returns 2 if this host has no key, and prints that.
# CONFIG: the registry's configuration. RAILS: gitlab.yml, which names the key that Rails signs tokens with.
use_own_registry() {
  value() { sed -n "/^ *$2:/,/^[a-z]/s/^ *$3: *//p" "$1" 2>/dev/null | tr -d "\"'" | head -n 1; }
  address=$(value "$1" http addr)
  case $address in
    0.0.0.0:* | :*) address=127.0.0.1:${address##*:} ;;
    '[::]:'*) address="[::1]:${address##*:}" ;;
  esac
  key=$(value "$2" registry key)
  key=${key:-/var/opt/gitlab/gitlab-rails/etc/gitlab-registry.key}
  certificate=$(value "$1" auth rootcertbundle)
  openssl=$(command -v openssl || echo /opt/gitlab/embedded/bin/openssl)
  if [ ! -r "$key" ] || [ ! -r "$certificate" ]; then
    echo "this host has no key to sign a token with ($key)"
    return 2
  fi
  work=$(mktemp -d /run/provision-storage.XXXXXX) || return
  trap 'rm -rf -- "$work"' EXIT
  issuer=$(value "$1" auth issuer) service=$(value "$1" auth service)
}

# use_token ACCESS: signs a token for ACCESS, a JSON list, and puts it into "$authorization", a line of curl's configuration.
# No user, password or project is needed. "$nonce" is random. Sources: the distribution API, its token authentication, header
# x5c; omnibus-gitlab, registry recipe.
use_token() {
  nonce=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  base64url() { "$openssl" base64 -A | tr '+/' '-_' | tr -d '='; }
  chain=$(sed -n '/BEGIN CERT/,/END CERT/{/-----/!p;/END CERT/q;}' "$certificate" | tr -d '\r\n')
  head=$(printf '{"typ":"JWT","alg":"RS256","x5c":["%s"]}' "$chain" | base64url)
  claims=$(printf '{"iss":"%s","aud":"%s","sub":"","jti":"%s","nbf":%s,"iat":%s,"exp":%s,"access":%s}' \
    "$issuer" "$service" "$nonce" $(($(now) - 30)) "$(now)" $(($(now) + 300)) "$1" | base64url)
  signature=$(printf %s "$head.$claims" | "$openssl" dgst -sha256 -sign "$key" -binary | base64url)
  authorization="header = \"Authorization: Bearer $head.$claims.$signature\""
}

# registry_errors: prints the last errors in the registry's log on standard input, once each. One that it does not start with has
# no level. svlogd puts the time before each line. Sources: omnibus-gitlab, sv-registry-log-run.erb; GitLab's container registry,
# registry/registry.go; distribution, registry/root.go.
registry_errors() {
  grep -aE '(level=|"level":")(error|fatal|panic)|^([0-9:._-]+ )?(panic|configuration error|creating new registry instance|configuring application):' |
    cut -c -400 | awk '{ line = $0; sub(/^[0-9:._-]+ /, "", line) } !seen[line]++' | tail -n 3
}

# storage_problem CONFIG RAILS SECONDS: uploads a small blob through the registry, reads it back and deletes it. Prints the
# step that failed and the registry's answer; nothing if all succeed. Returns 2 if it cannot be checked, and prints why.
#
# A project has a group in its path, so that no project has the repository's name. The registry's log has the storage
# driver's own error. Source: the distribution API, "Pushing a layer".
storage_problem() (
  last=$(($(now) + $3)) name=provision-storage-check
  use_own_registry "$1" "$2" || exit
  use_token '[{"type":"repository","name":"'$name'","actions":["pull","push","delete","*"]}]'
  credentials=$authorization
  content="written by provision $nonce"
  digest=sha256:$(printf %s "$content" | sha256sum | cut -d ' ' -f 1)
  # ask STEP EXPECTED URL [options of curl]: sends the request with "$credentials"; prints what fails and ends.
  # The URL stays out of the arguments: an address signed by the registry has the access key in it.
  ask() {
    step=$1 expected=$2 target=$3
    shift 3
    left=$((last - $(now)))
    [ "$left" -gt 0 ] || left=1
    quoted=$(printf '%s\n' "$target" | sed 's/[\\"]/\\&/g')
    status=$(printf '%s\nurl = "%s"\n' "$credentials" "$quoted" | curl -sS -g -K - --noproxy '*' --proto '=http,https' \
      --max-time "$left" -D "$work/headers" -o "$work/body" -w '%{http_code}' "$@" 2> "$work/error")
    code=$?
    case $code in 6 | 7 | 28) [ "$status" != 000 ] || status=unreachable ;; esac
    case " $expected " in *" $status "*) return 0 ;; esac
    if [ "$status" = 000 ] || [ "$status" = unreachable ]; then
      echo "$step: $(cat "$work/error")"
    else
      echo "$step: HTTP $status $(head -c 300 "$work/body" 2>/dev/null)"
    fi
    exit 0
  }
  # Locations name the host as clients see it; only the path is used.
  location() { tr -d '\r' < "$work/headers" | sed -n 's/^[Ll]ocation: *//p' | tail -n 1; }
  ask 'an upload cannot be started' 202 "http://$address/v2/$name/blobs/uploads/" -X POST
  path=/$(location | sed 's|^[a-z]*://[^/]*||; s|^/*||')
  case $path in *\?*) path="$path&digest=$digest" ;; *) path="$path?digest=$digest" ;; esac
  ask 'an upload cannot be written' 201 "http://$address$path" -X PUT -H 'Content-Type: application/octet-stream' --data-binary "$content"
  blob="http://$address/v2/$name/blobs/$digest"
  ask 'what was written cannot be read' '200 307' "$blob"
  if [ "$status" = 307 ]; then
    # The address of the object in the storage, signed by the registry. Its token is not for the storage.
    # Clients follow it. This host may reach the storage only through the registry's proxy (curl's exit codes 6, 7 and 28):
    # then the registry's own look at the object has to do.
    credentials=
    ask 'what was written cannot be read from the storage' '200 unreachable' "$(location)" --connect-timeout 3
    credentials=$authorization
  fi
  if [ "$status" = unreachable ]; then
    ask 'what was written cannot be found in the storage' '200 307' "$blob" -I
  elif [ "$(cat "$work/body")" != "$content" ]; then
    echo 'what was read is not what was written'
    exit 0
  fi
  # 405: deleting is disabled in the registry's settings.
  ask 'what was written cannot be deleted' '202 405' "$blob" -X DELETE
  # S3 answers a deletion of several objects with 200 even if it deletes none, and distribution 2.8 takes that for a success.
  [ "$status" = 405 ] || ask 'what was deleted can still be read' 404 "$blob"
)

# image_in CONFIG RAILS: prints the name of a repository with tags; nothing if the registry has none, whether the names are
# in its storage or in its metadata database. Returns 2 if that cannot be found out, and prints why.
# Sources: the distribution API, "Listing Repositories" and "Listing Image Tags".
image_in() (
  use_own_registry "$1" "$2" || exit
  # get PATH: asks for a JSON text, and prints it without blanks; fails, and prints why, if the answer is none.
  get() {
    status=$(printf '%s\nurl = "http://%s%s"\n' "$authorization" "$address" "$1" |
      curl -sS -g -K - --noproxy '*' --proto '=http,https' --max-time 20 -o "$work/body" -w '%{http_code}' 2> "$work/error")
    case $status in
      200 | 404) tr -d ' \n' < "$work/body" ;;
      000) echo "the registry does not answer: $(cat "$work/error")"; return 2 ;;
      *) echo "the registry answers $1 with HTTP $status $(head -c 300 "$work/body")"; return 2 ;;
    esac
  }
  use_token '[{"type":"registry","name":"catalog","actions":["*"]}]'
  answer=$(get '/v2/_catalog?n=100') || { echo "$answer"; exit 2; }
  for name in $(printf '%s' "$answer" | sed 's/.*"repositories":\[//; s/\].*//' | tr ',' '\n' | tr -d '"' | grep -ax '[a-z0-9][a-z0-9._/-]*'); do
    use_token '[{"type":"repository","name":"'"$name"'","actions":["pull"]}]'
    answer=$(get "/v2/$name/tags/list") || { echo "$answer"; exit 2; }
    case $answer in *'"tags":["'*) echo "$name"; exit ;; esac
  done
)

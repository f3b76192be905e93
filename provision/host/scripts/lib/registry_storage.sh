#!/bin/sh
# The check of a registry's storage by use, on the GitLab host. It needs lib/services.sh.

# storage_problem CONFIG RAILS SECONDS: uploads a small blob through the registry, reads it back and deletes it. Prints the
# step that failed and the registry's answer; nothing if all succeed. Returns 2 if it cannot be checked, and prints why.
# CONFIG: the registry's configuration. RAILS: gitlab.yml, which names the key that Rails signs tokens with.
#
# The token is signed here with that key: no user, password or project is needed. A project has a group in its path, so that
# no project has the repository's name. The registry's log has the storage driver's own error.
# Sources: the distribution API, "Pushing a layer"; its token authentication, header x5c; omnibus-gitlab, registry recipe.
storage_problem() (
  config=$1 rails=$2 last=$(($(now) + $3))
  value() { sed -n "/^ *$2:/,/^[a-z]/s/^ *$3: *//p" "$1" 2>/dev/null | tr -d "\"'" | head -n 1; }
  address=$(value "$config" http addr)
  case $address in
    0.0.0.0:* | :*) address=127.0.0.1:${address##*:} ;;
    '[::]:'*) address="[::1]:${address##*:}" ;;
  esac
  key=$(value "$rails" registry key)
  key=${key:-/var/opt/gitlab/gitlab-rails/etc/gitlab-registry.key}
  certificate=$(value "$config" auth rootcertbundle)
  openssl=$(command -v openssl || echo /opt/gitlab/embedded/bin/openssl)
  if [ ! -r "$key" ] || [ ! -r "$certificate" ]; then
    echo "this host has no key to sign a token with ($key)"
    exit 2
  fi
  work=$(mktemp -d /run/provision-storage.XXXXXX) || exit
  trap 'rm -rf -- "$work"' EXIT
  name=provision-storage-check
  nonce=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  content="written by provision $nonce"
  digest=sha256:$(printf %s "$content" | sha256sum | cut -d ' ' -f 1)
  base64url() { "$openssl" base64 -A | tr '+/' '-_' | tr -d '='; }
  chain=$(sed -n '/BEGIN CERT/,/END CERT/{/-----/!p;/END CERT/q;}' "$certificate" | tr -d '\r\n')
  head=$(printf '{"typ":"JWT","alg":"RS256","x5c":["%s"]}' "$chain" | base64url)
  claims=$(printf '{"iss":"%s","aud":"%s","sub":"","jti":"%s","nbf":%s,"iat":%s,"exp":%s,"access":[{"type":"repository","name":"%s","actions":["pull","push","delete","*"]}]}' \
    "$(value "$config" auth issuer)" "$(value "$config" auth service)" "$nonce" $(($(now) - 30)) "$(now)" $(($(now) + 300)) "$name" | base64url)
  signature=$(printf %s "$head.$claims" | "$openssl" dgst -sha256 -sign "$key" -binary | base64url)
  authorization="header = \"Authorization: Bearer $head.$claims.$signature\""
  # ask STEP EXPECTED URL [options of curl]: sends the request with "$authorization"; prints what fails and ends.
  # The URL stays out of the arguments: an address signed by the registry has the access key in it.
  ask() {
    step=$1 expected=$2 target=$3
    shift 3
    left=$((last - $(now)))
    [ "$left" -gt 0 ] || left=1
    quoted=$(printf '%s\n' "$target" | sed 's/[\\"]/\\&/g')
    status=$(printf '%s\nurl = "%s"\n' "$authorization" "$quoted" | curl -sS -g -K - --noproxy '*' --proto '=http,https' \
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
    own=$authorization authorization=
    ask 'what was written cannot be read from the storage' '200 unreachable' "$(location)" --connect-timeout 3
    authorization=$own
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

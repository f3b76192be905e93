#!/bin/sh
# The image that a tag names in a registry, found with the requests that Docker sends.

# digest_of BASE REPOSITORY TAG USER PASSWORD: prints the digest, `absent`, or `? REASON`.
#
# One HEAD request for the manifest with the token that the registry requires: about 50 ms, and Docker Hub does not count
# it as a pull. A CA in Docker's certs.d is used. Credentials reach curl on standard input.
# Sources: the distribution API, "Token authentication" and "HEAD manifest".
digest_of() (
  folder="/etc/docker/certs.d/${1#*://}" url="$1/v2/$2/manifests/$3"
  ask() { curl -sS -K - --max-time 15 ${ca:+--cacert "$ca"} "$@" 2>&1; }
  quoted() { printf '%s' "$1" | sed 's/[\\"]/\\&/g'; }
  ca=; [ ! -e "$folder/ca.crt" ] || ca="$folder/ca.crt"
  kinds='application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json'
  kinds="$kinds, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
  credentials=; [ -z "$4" ] || credentials="user = \"$(quoted "$4:$5")\""
  answer=$(printf 'header = "Accept: %s"\n' "$kinds" | ask -I -- "$url") || { echo "? $answer"; exit; }
  field() { printf '%s\n' "$answer" | tr -d '\r' | sed -n "s/^[Ww][Ww][Ww]-[Aa]uthenticate: *$1.*/\1/p" | head -n 1; }
  case $answer in
    HTTP/*' 401'*)
      realm=$(field '[Bb]earer .*realm="\([^"]*\)"') service=$(field '.*service="\([^"]*\)"')
      if [ -n "$realm" ]; then
        token=$(printf '%s\n' "$credentials" | ask -G --data-urlencode "service=$service" --data-urlencode "scope=repository:$2:pull" -- "$realm")
        token=$(printf '%s' "$token" | sed -n 's/.*"token" *: *"\([^"]*\)".*/\1/p;t;s/.*"access_token" *: *"\([^"]*\)".*/\1/p')
        [ -n "$token" ] || { echo "? the login is refused"; exit; }
        credentials="header = \"Authorization: Bearer $token\""
      fi
      answer=$(printf 'header = "Accept: %s"\n%s\n' "$kinds" "$credentials" | ask -I -- "$url") || { echo "? $answer"; exit; } ;;
  esac
  case $answer in
    HTTP/*' 200'*) printf '%s\n' "$answer" | tr -d '\r' | sed -n 's/^[Dd]ocker-[Cc]ontent-[Dd]igest: *//p' | tail -n 1 ;;
    HTTP/*' 404'*) echo absent ;;
    HTTP/*' 401'* | HTTP/*' 403'*) echo '? the login is refused, or has no read access there' ;;
    *) echo "? the registry answers $(printf '%s' "$answer" | head -n 1 | tr -d '\r')" ;;
  esac
)

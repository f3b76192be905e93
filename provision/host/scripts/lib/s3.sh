#!/bin/sh
# Requests to S3.

# ask_s3 HEADERS: sends a request by curl, which reads its configuration on standard input. Prints the answer, then its
# status in a line. HEADERS: a file for the answer's headers.
#
# A proxy in the configuration is used: the registry has it, too. Without one, S3 is asked directly, because GitLab's
# supervisor starts the registry without the environment of a login. A proxy of the host's environment is then used only
# where S3 cannot be reached otherwise: gitlab.rb may give it to the registry (registry['env']).
ask_s3() {
  headers=$1 request=$(cat)
  send() { printf '%s\n' "$request" | curl -g -K - --proto '=http,https' -D "$headers" -w '\n%{http_code}\n' "$@"; }
  case $request in *'proxy = "'*) send; return ;; esac
  answer=$(send --noproxy '*' --connect-timeout 5)
  code=$?
  case $code:${https_proxy:-}${HTTPS_PROXY:-}${http_proxy:-}${all_proxy:-}${ALL_PROXY:-} in
    *:) ;;
    6:* | 7:* | 28:*) answer=$(send); code=$? ;;
  esac
  printf '%s\n' "$answer"
  return "$code"
}

# use_s3 ORIGIN: what the functions below use. Eight lines of standard input: the access key, the session token or nothing,
# the scope of the signatures, their time, the two blocks of the key that signs, each byte as `\ooo`, and two lines of
# curl's configuration with a proxy and its exceptions, both empty for none.
# ORIGIN: scheme and host of the bucket. Host names and key stay out of arguments: `printf` is part of the shell.
use_s3() {
  origin=$1
  IFS= read -r access && IFS= read -r session && IFS= read -r scope && IFS= read -r stamp &&
    IFS= read -r inner && IFS= read -r outer && IFS= read -r proxy && IFS= read -r direct
}

# hash_of: prints the SHA-256 of standard input.
hash_of() { sha256sum | cut -d ' ' -f 1; }

# mac_of: prints the HMAC-SHA256 of standard input with the key. Source: RFC 2104.
# shellcheck disable=SC2046,SC2059 # bytes are words of digits, and texts of `\ooo` are formats
mac_of() {
  first=$({ printf "$inner"; cat; } | hash_of)
  { printf "$outer"; printf "$(printf '\\%03o' $(printf '%s' "$first" | sed 's/../ 0x&/g'))"; } | hash_of
}

# signed METHOD PATH QUERY HASH HEADER…: prints the configuration of curl for a signed request. PATH and QUERY are encoded,
# and the parts of the query sorted. HASH: of the body, or S3's word for it. HEADER: `name:value`, the name in lower case.
# Source: AWS, "Create a signed AWS API request".
signed() {
  method=$1 path=$2 query=$3 hash=$4
  shift 4
  headers=$(printf '%s\n' "host:${origin#*://}" "x-amz-content-sha256:$hash" "x-amz-date:$stamp" \
    ${session:+"x-amz-security-token:$session"} "$@" | LC_ALL=C sort)
  names=$(printf '%s\n' "$headers" | cut -d : -f 1 | paste -s -d ';' -)
  canonical=$(printf '%s\n%s\n%s\n%s\n\n%s\n%s' "$method" "$path" "$query" "$headers" "$names" "$hash" | hash_of)
  signature=$(printf 'AWS4-HMAC-SHA256\n%s\n%s\n%s' "$stamp" "$scope" "$canonical" | mac_of)
  printf '%s\n' "$proxy" "$direct"
  printf 'silent\nshow-error\nmax-time = 60\nrequest = "%s"\nurl = "%s"\nheader = "expect:"\n' \
    "$method" "$origin$path${query:+?$query}"
  printf '%s\n' "$headers" | sed 's/[\\"]/\\&/g; s/:/: /; s/.*/header = "&"/'
  printf 'header = "authorization: AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s"\n' \
    "$access" "$scope" "$names" "$signature"
}

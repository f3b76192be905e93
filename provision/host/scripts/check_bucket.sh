#!/bin/sh
# Sends signed requests to S3, one after the other, and ends at the first that is not answered with 2xx.
# Standard input: a configuration of curl for each request, separated by lines of `--`. It holds the signatures.
# On failure the cause is on standard error.
. ./lib/s3.sh
step() {
  answer=$(printf '%s\n' "$config" | ask_s3 /dev/null 2>&1)
  case $(printf '%s' "$answer" | tail -n 1) in 2??) return 0 ;; esac
  case $(printf '%s' "$config" | sed -n 's/^request = "\(.*\)"/\1/p') in
    PUT) verb=put right=PutObject ;; GET) verb=get right=GetObject ;; *) verb=delete right=DeleteObject ;;
  esac
  case $answer in
    *'<Code>AccessDenied</Code>'*) echo "these keys may not $verb an object (AccessDenied): allow s3:$right in the bucket's policy" ;;
    *) printf 'S3 does not %s an object: %s\n' "$verb" "$answer" ;;
  esac >&2
  exit 1
}
config=
while IFS= read -r line; do
  case $line in --) step; config= ;; *) config="$config
$line" ;; esac
done

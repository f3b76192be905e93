#!/bin/sh
# Sends a signed request to S3. Standard input: its configuration for curl, which holds the signature; after a line of `--`
# that of the same request with the bucket's name in the other place, which is sent if S3 refuses the first.
# Prints the answer, then its status in a line; then `other` if the other place works. On standard error: the host's time,
# then the answer's headers. The registry signs with the host's clock.
. ./lib/s3.sh
config='' other='' now=first
while IFS= read -r line; do
  case $now$line in
    first--) now=other ;;
    first*) config="$config$line
" ;;
    *) other="$other$line
" ;;
  esac
done
date +%s >&2
answer=$(printf '%s' "$config" | ask_s3 /dev/stderr)
code=$?
printf '%s\n' "$answer"
case $code:${answer##*"
"}:$other in
  0:2??:* | 28:* | *:) ;;
  *) ! printf '%s' "$other" | ask_s3 /dev/null 2>/dev/null | grep -q '<ListBucketResult' || echo other ;;
esac
exit "$code"

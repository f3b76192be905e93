#!/bin/sh
# Obtains a certificate with certbot. Arguments: HOOKS HOST EMAIL SERVER AGAIN
#   HOOKS: the folder of the renewal hooks. AGAIN: yes replaces the certificate that certbot has.
# Prints certbot's output. certbot calls the hooks for renewals only, so they are called here.
hooks=$1 host=$2 email=$3 server=$4 again=$5
trap '"$hooks/post/gitlab"' EXIT
"$hooks/pre/gitlab" || exit 1
set -- --cert-name "$host" -d "$host" --email "$email" --server "$server"
[ -z "$again" ] || set -- "$@" --force-renewal
certbot certonly --standalone --non-interactive --agree-tos --no-eff-email "$@"

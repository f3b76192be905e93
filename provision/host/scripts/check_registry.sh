#!/bin/sh
# Checks that an image can be pushed to the registry and pulled from it, from this host.
# Arguments: HOST PORT URL REGISTRY USER IMAGE CA HOSTS. REGISTRY: as in image names. CA: a file, or a path where none is.
# HOSTS: those that may give tokens, see lib/registry.sh. Docker has proxies of its own: no other proxy is used.
# Standard input: the password, one line. Prints the name of each step; the first that fails is on standard error, with
# its cause and a remedy.
. ./lib/docker.sh
. ./lib/registry.sh
host=$1 port=$2 registry=$4 user=$5 image=$6
use_registry "$3" "$7" "$8" yes
IFS= read -r password
use_temporary_login
tag="provision-$(hostname)-$(od -An -N6 -tx1 /dev/urandom | tr -d ' \n')"
ref="$registry/$image:$tag"
trap 'docker image rm -f "$ref" >/dev/null 2>&1; docker logout "$registry" >/dev/null 2>&1; rm -rf -- "$work"' EXIT
echo 'name'
address=$(getent ahosts "$host") || fail name "$host does not resolve on this host" 'give it an address in DNS or /etc/hosts'
address=${address%%[[:space:]]*}
output=$(ask_registry -o /dev/null -D "$work/headers" -- "$base/v2/" 2>&1 </dev/null)
code=$?
echo 'connection'
refused='check that the registry runs (gitlab-ctl status) and that its port is open (provision firewall)'
# GitLab's nginx listens on IPv4 only by default.
case $address in *:*) refused="$refused; for IPv6 set registry_nginx.listen_addresses = [\"*\", \"[::]\"] in [gitlab.settings]" ;; esac
case $code in
  0) ;;
  7) fail tcp "$host ($address) refuses port $port" "$refused" ;;
  28) fail tcp "$host ($address) port $port does not answer" 'a firewall may drop the packets: run provision firewall, and check the firewall of your provider' ;;
  60) fail tls "its certificate is not trusted: $output" 'name its CA in registry.certificate.ca and run provision docker' ;;
  35) fail tls "the TLS handshake fails: $output" 'check that this port serves https' ;;
  *) fail connection "$output" "try on the host: curl -v $base/v2/" ;;
esac
echo '/v2/'
grep -q '^HTTP/[0-9.]* 50[23]' "$work/headers" && failed=114
grep -q '^HTTP/[0-9.]* 401' "$work/headers" || fail /v2/ "answers $(head -n 1 "$work/headers")" 'see gitlab-ctl tail registry on the GitLab host'
headers=$(cat "$work/headers")
realm=$(realm_of "$headers")
[ -n "$realm" ] || fail /v2/ 'its answer contains no address for tokens' 'run provision registry'
reason=$(require_realm "$realm") || fail /v2/ "$reason" 'check gitlab.external_url, and run provision registry'
require_reference "$ref"
echo 'docker login'
output=$(printf '%s' "$password" | docker login -u "$user" --password-stdin "$registry" 2>&1) ||
  registry_fails login "$output" "$(remedy login "$output" 'check registry.login, and that this host reaches external_url')"
echo 'docker push'
mkdir "$work/root" && printf '%s\n' "$tag" > "$work/root/provision-verify"
output=$(tar -C "$work/root" -c . | docker import - "$ref" 2>&1) || fail image "$output" 'check docker info on this host'
output=$(docker push "$ref" 2>&1) ||
  registry_fails push "$(printf '%s' "$output" | tail -n 3)" "$(remedy push "$output" 'check that the registry can write to its storage')"
digest=$(docker image inspect -f '{{range .RepoDigests}}{{println .}}{{end}}' "$ref" | sed -n 's/.*@//p' | head -n 1)
docker image rm -f "$ref" >/dev/null 2>&1
echo 'docker pull'
output=$(docker pull "$ref" 2>&1) ||
  registry_fails pull "$(printf '%s' "$output" | tail -n 3)" \
    "$(remedy pull "$output" 'the push succeeded: check that clients reach the storage, or disable redirects in registry.storage')"
docker image inspect -f '{{range .RepoDigests}}{{println .}}{{end}}' "$ref" | grep -qF "$digest" || fail pull "the pulled image is not $digest" 'check for a caching proxy between this host and the registry'
echo 'delete'
token=$(token_from "$realm" "$(service_of "$headers")" "repository:$image:pull,push,delete,*" "$user" "$password")
[ $? != 114 ] || failed=114
[ -n "$token" ] || fail delete 'GitLab gave no token for it' 'check that this user may delete in this project'
code=$(printf 'header = "Authorization: Bearer %s"\n' "$token" | ask_registry -o "$work/body" -w '%{http_code}' -X DELETE -- "$base/v2/$image/manifests/$digest" 2>&1)
if [ "$code" != 202 ]; then
  # GitLab's token contains fewer rights than asked for, and the registry then answers 401. Sources: GitLab's
  # Auth::ContainerRegistryAuthenticationService; distribution's api/errcode: UNSUPPORTED is 405.
  case $code in
    401 | 403) advice='GitLab lets the role Maintainer delete images, with the password or a token with the scope api (read_registry and write_registry do not delete)' ;;
    405) advice='enable delete in registry.storage, or delete the tag manually' ;;
    *) advice='see gitlab-ctl tail registry on the GitLab host' ;;
  esac
  fail delete "HTTP $code, the tag stays in the registry: $ref $(head -c 300 "$work/body" 2>/dev/null)" "$advice"
fi
echo 'earlier image'
# What was pushed now is in today's storage. With a metadata database, images of an earlier storage are listed without data.
problem=$(earlier_image_problem "$image" "$token" "$work") || fail 'earlier image' "$problem" \
  'copy all objects below docker/ from the earlier storage to this one, or delete the tag'

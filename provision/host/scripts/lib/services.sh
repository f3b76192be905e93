#!/bin/sh
# Waiting for services of this host itself.

now() { date +%s; }

# loopback_of URL: the loopback address to reach its host at. An IPv6 address in the URL is served on IPv6 only.
loopback_of() { case $1 in *://\[*) echo '[::1]' ;; *) echo 127.0.0.1 ;; esac; }

# ask_service URL [options of curl]: sends the request to this host, whatever the URL's name resolves to.
# A proxy of the host's environment must not answer in the service's place.
ask_service() {
  service=$1
  shift
  curl -sk --noproxy '*' --max-time 5 --connect-to "::$(loopback_of "$service"):" "$@" -- "$service"
}

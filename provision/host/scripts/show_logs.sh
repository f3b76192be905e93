#!/bin/sh
# Prints the last LINES of a container's log. Arguments: CONTAINER LINES
docker container inspect "$1" >/dev/null || exit 1
exec docker logs --tail "$2" "$1"

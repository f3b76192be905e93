#!/bin/sh
# Prints which image a tag names in a registry: its digest, `absent`, or `? REASON`.
# Arguments: BASE REPOSITORY TAG USER HOSTS DIRECT. BASE, HOSTS, DIRECT: see lib/registry.sh. Standard input: the password,
# one line.
. ./lib/registry.sh
IFS= read -r password
digest_of "$1" "$2" "$3" "$4" "$password" "$5" "$6"

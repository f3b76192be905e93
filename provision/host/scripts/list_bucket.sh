#!/bin/sh
# Sends one signed request to S3. Standard input: its configuration for curl, which holds the signature.
# Prints the answer, then its status in a line. On standard error: the host's time, then the answer's headers. The registry
# signs with the host's clock.
. ./lib/s3.sh
date +%s >&2
ask_s3 /dev/stderr

#!/bin/sh
# certbot answers on port 80 itself: GitLab's nginx frees the port for that time.
[ -z "$(ss -Hltn 'sport = :80')" ] || gitlab-ctl stop nginx

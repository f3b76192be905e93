#!/bin/sh
# Starts GitLab's nginx, which the hook pre/gitlab stopped.
[ ! -e /opt/gitlab/service/nginx ] || gitlab-ctl status nginx >/dev/null || gitlab-ctl start nginx

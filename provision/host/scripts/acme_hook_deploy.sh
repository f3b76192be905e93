#!/bin/sh
# GitLab serves the renewed certificate after this: no reconfigure is needed.
[ ! -e /opt/gitlab/service/nginx ] || { gitlab-ctl hup nginx && gitlab-ctl hup registry; }

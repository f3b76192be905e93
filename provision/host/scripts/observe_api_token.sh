#!/bin/sh
# Prints what is known about the token for GitLab's API that is kept on this host, without the token itself.
# Arguments: FILE INITIAL. INITIAL: where GitLab writes root's first password
# Prints the lines of FILE but the token, then:
#   today DATE      by this host's clock
#   unfinished      an earlier run was ended while it made a token
#   initial         INITIAL exists
#   rails           GitLab was configured: gitlab-rails can be run
! [ -s "$1" ] || sed '/^token /d' "$1"
date -u '+today %F'
! [ -e "$1.new" ] || echo unfinished
! [ -e "$2" ] || echo initial
! [ -e /opt/gitlab/etc/gitlab-rails-rc ] || echo rails

"""The `gitlab-runner` packages of the lab: a program with the commands, output and exit codes of the real one.

`build.py` builds the .deb files, `host/` is the program. Source: gitlab-runner's code, read at 19.3, and transcripts of
its output.
"""

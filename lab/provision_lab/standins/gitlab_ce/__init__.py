"""A `gitlab-ce` package for the lab: it does what the omnibus package does, with real Ruby, nginx and registry.

`build.py` builds the .deb files, `host/` runs on the lab host, `rb/`, `debian/` and `root/` are copied unchanged.
"""

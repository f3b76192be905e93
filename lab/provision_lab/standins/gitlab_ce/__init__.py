"""A `gitlab-ce` package for the lab: does what the omnibus package does, with real Ruby, nginx and registry.

`build.py` makes the .deb files, `host/` runs on the lab host, `rb/`, `debian/` and `root/` are laid as they are.
"""

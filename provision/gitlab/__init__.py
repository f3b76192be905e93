"""The client of GitLab's API, on python-gitlab. It runs on this machine, never on hosts that run jobs."""

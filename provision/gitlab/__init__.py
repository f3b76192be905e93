"""The GitLab API side, on python-gitlab. Asked from the controller, never from hosts that run jobs."""

"""The program `gitlab-runner` on a lab host: the standard library only, on the host's own Python."""

"""The program `gitlab-runner` of a lab host. It needs the host's Python and its standard library only."""

"""GitLab's HTTP side: the REST API that runners, projects and variables need, and the registry's tokens."""

"""What is set in a project of GitLab: settings, runners, CI/CD variables.  Source: GitLab's REST API, /projects/:id.

model      what is asked for
look       what is there, asked from here
variables  which variables differ, and what brings them about
runners    which runners are to be assigned and locked
memory     what state.json remembers of it: fingerprints under a random key, never a value
project    the resource: one look, then settings, runners and variables in turn
"""

from __future__ import annotations

from provision.resources.gitlab_project.model import WantedProject, WantedVariable
from provision.resources.gitlab_project.project import ProjectSettings

__all__ = ["ProjectSettings", "WantedProject", "WantedVariable"]

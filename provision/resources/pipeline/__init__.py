"""A project's .gitlab-ci.yml.

look     what is there in GitLab, and what its lint says of what is wanted
file     the resource: it is on a branch, or in a merge request
local    the resource: it is in a file on this machine
"""

from __future__ import annotations

from provision.resources.pipeline.file import PipelineFile
from provision.resources.pipeline.local import LocalPipeline
from provision.resources.pipeline.recipe import Recipe

__all__ = ["LocalPipeline", "PipelineFile", "Recipe"]

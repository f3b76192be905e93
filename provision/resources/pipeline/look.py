"""What is there in GitLab of a pipeline, and what its lint says of the one that is wanted."""

from __future__ import annotations

import re
from typing import Any

from provision.errors import Refused
from provision.gitlab.repository import Content, Repository
from provision.values import dataclass


@dataclass(frozen=True)
class There:
    """The file in the project.

    path      where the project keeps its pipeline
    branch    where it is wanted; `exists`: whether there is such a branch
    default   the project's default branch; `empty`: nothing was ever committed
    now       the file on that branch; where it is new, on the default branch, which it will be made from
    proposed  the file on the branch that a merge request would come from; `branched`: whether that is there
    request   the open merge request's address, "" for none
    errors    GitLab's lint; asked only where the file differs
    """

    path: str
    branch: str
    default: str
    empty: bool
    exists: bool = True
    now: Content | None = None
    proposed: Content | None = None
    branched: bool = False
    request: str = ""
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def look(repository: Repository, text: str, branch: str | None, ours: str | None) -> There | None:
    """Looks as far as needed; None where there is no such project. `ours`: the branch for a merge request, if one is wanted.

    Raises ApiFailed, and Refused where the pipeline is kept elsewhere.
    """
    project = repository.api.find(repository.address)
    if project is None:
        return None
    path = _path(str(project.get("ci_config_path") or ""))
    default = str(project.get("default_branch") or "main")
    target = branch or default
    empty = bool(project.get("empty_repo"))
    now = None if empty else repository.file(path, target)
    found: dict[str, Any] = {"path": path, "branch": target, "default": default, "empty": empty, "now": now}
    if now is not None and now.text == text:
        return There(**found)
    if now is None and not empty and target != default and not repository.has_branch(target):
        found |= {"exists": False, "now": repository.file(path, default)}
    if ours is not None and not empty and found.get("exists", True):
        found |= _proposal(repository, path, ours, target)
        proposed = found["proposed"]
        if found["request"] and proposed is not None and proposed.text == text:
            return There(**found)
    said = repository.lint(int(project["id"]), text)
    errors = () if said.get("valid") else tuple(map(str, said.get("errors") or ["invalid, without a reason"]))
    return There(**found, errors=errors, warnings=tuple(map(str, said.get("warnings") or ())))


def _proposal(repository: Repository, path: str, ours: str, target: str) -> dict[str, Any]:
    proposed = repository.file(path, ours)
    branched = proposed is not None or repository.has_branch(ours)
    request = repository.merge_request(ours, target) if branched else None
    return {"proposed": proposed, "branched": branched, "request": str(request["web_url"]) if request else ""}


def _path(text: str) -> str:
    if not text:
        return ".gitlab-ci.yml"
    if "@" in text or re.match(r"https?://", text):
        raise Refused(
            f"the project takes its pipeline from elsewhere: {text}",
            hint="empty 'CI/CD configuration file' in its settings, or leave the pipeline out of the inventory",
        )
    return text

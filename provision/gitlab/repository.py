"""A project's repository through the API: one file, branches, merge requests, CI lint.

Sources: GitLab's REST API, /projects/:id/repository/files, …/branches, …/merge_requests, …/ci/lint.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from provision.errors import ApiFailed, ChangedMeanwhile
from provision.gitlab.api import Api


@dataclass(frozen=True)
class Content:
    """A file on a branch; `last_commit_id` is the commit that touched it last."""

    text: str
    last_commit_id: str


@dataclass(frozen=True)
class Repository:
    """The repository of the project at `address`, such as `/projects/group%2Fname`."""

    api: Api
    address: str

    def file(self, path: str, branch: str) -> Content | None:
        """A file; None where the file, the branch or any commit is missing."""
        found = self.api.find(self._file(path), {"ref": branch})
        if found is None:
            return None
        text = base64.b64decode(found["content"]).decode("utf-8", "replace")
        return Content(text, str(found["last_commit_id"]))

    def has_branch(self, name: str) -> bool:
        """Whether there is a branch of that name."""
        return self.api.find(self._branch(name)) is not None

    def delete_branch(self, name: str) -> None:
        """Deletes a branch."""
        self.api.delete(self._branch(name))

    def commit(self, path: str, text: str, seen: Content | None, target: Mapping[str, str], message: str) -> None:
        """One commit with a file: a new one, or a change of what was `seen`.

        target  `branch`, and where that is new `start_branch`
        Raises ChangedMeanwhile when somebody else committed to the file since it was seen.
        """
        data = {**target, "commit_message": message, "content": text}
        try:
            if seen is None:
                self.api.post(self._file(path), data)
            else:
                self.api.put(self._file(path), {**data, "last_commit_id": seen.last_commit_id})
        except ApiFailed as error:
            if error.status == 400 and self.file(path, target.get("start_branch") or target["branch"]) != seen:
                raise ChangedMeanwhile(f"somebody else committed to {path} meanwhile") from error
            raise

    def lint(self, number: int, text: str) -> dict[str, Any]:
        """GitLab's judgement of a pipeline in this project: `valid`, `errors`, `warnings`. `number`: the project's id."""
        return self.api.post(f"/projects/{number}/ci/lint", {"content": text})

    def merge_request(self, source: str, target: str) -> dict[str, Any] | None:
        """The open merge request of these branches."""
        query = {"state": "opened", "source_branch": source, "target_branch": target}
        return next(iter(self.api.list(f"{self.address}/merge_requests", query)), None)

    def open_merge_request(self, source: str, target: str, title: str) -> None:
        """Opens a merge request; its branch goes once it is merged."""
        data = {"source_branch": source, "target_branch": target, "title": title, "remove_source_branch": True}
        self.api.post(f"{self.address}/merge_requests", data)

    def _file(self, path: str) -> str:
        return f"{self.address}/repository/files/{quote(path, safe='')}"

    def _branch(self, name: str) -> str:
        return f"{self.address}/repository/branches/{quote(name, safe='')}"

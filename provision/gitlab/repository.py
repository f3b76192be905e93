"""A project's repository through the API: one file, branches, merge requests, CI lint.

Sources: GitLab's REST API, /projects/:id/repository/files, …/branches, …/merge_requests, …/ci/lint.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from provision.errors import ApiFailed, ChangedMeanwhile
from provision.gitlab.api import Api


@dataclass(frozen=True)
class Content:
    """A file on a branch; `last_commit_id` is the commit that changed it last."""

    text: str
    last_commit_id: str


@dataclass(frozen=True)
class Lint:
    """What GitLab's CI lint reports about a pipeline. Without errors it is valid."""

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class MergeRequest:
    """An open merge request; `web_url` is its page."""

    web_url: str


@dataclass(frozen=True)
class Repository:
    """The repository of the project at `address`, such as `/projects/group%2Fname`."""

    api: Api
    address: str

    def file(self, path: str, branch: str) -> Content | None:
        """A file; None if the file or the branch does not exist, or if the repository is empty."""
        found = self.api.find(self._file(path), {"ref": branch})
        if found is None:
            return None
        text = base64.b64decode(found["content"]).decode("utf-8", "replace")
        return Content(text, str(found["last_commit_id"]))

    def has_branch(self, name: str) -> bool:
        """Whether a branch of that name exists."""
        return bool(self.head(name))

    def head(self, branch: str = "") -> str:
        """The newest commit of a branch, or of the default branch; "" if there is none."""
        found = self.api.find(self._branch(branch) if branch else f"{self.address}/repository/commits/HEAD")
        return str((found["commit"] if branch else found)["id"]) if found else ""

    def delete_branch(self, name: str) -> None:
        """Deletes a branch."""
        self.api.delete(self._branch(name))

    def commit(self, path: str, text: str, seen: Content | None, target: Mapping[str, str], message: str) -> None:
        """Makes one commit that creates a file, or replaces the content `seen`, as it was observed.

        target  the API's own fields: `branch`, and for a new branch `start_branch`

        Raises ChangedMeanwhile if another commit changed the file after it was read.
        """
        data = {**target, "commit_message": message, "content": text}
        try:
            if seen is None:
                self.api.post(self._file(path), data)
            else:
                self.api.put(self._file(path), {**data, "last_commit_id": seen.last_commit_id})
        except ApiFailed as error:
            if error.status == 400 and self.file(path, target.get("start_branch") or target["branch"]) != seen:
                raise ChangedMeanwhile(f"another commit changed {path} in the meantime") from error
            raise

    def lint(self, project_id: int, text: str) -> Lint:
        """Checks the text of a pipeline by GitLab's CI lint, in this project."""
        answer = self.api.post(f"/projects/{project_id}/ci/lint", {"content": text})
        errors = [] if answer.get("valid") else answer.get("errors") or ["invalid, without a reason"]
        return Lint(tuple(map(str, errors)), tuple(map(str, answer.get("warnings") or ())))

    def why_no_pipeline(self, commit: str) -> str:
        """Why a commit, or with "" the project, has no pipeline; "" if one may still appear."""
        project = self.api.get(self.address)
        if project.get("builds_access_level") == "disabled" or project.get("jobs_enabled") is False:
            return "CI/CD is off in the project's settings"
        path = str(project.get("ci_config_path") or "") or ".gitlab-ci.yml"
        if not commit or "@" in path or path.startswith(("http://", "https://")):
            return ""
        found = self.file(path, commit)
        if found is None:
            return "" if project.get("auto_devops_enabled") else f"the commit has no {path}"
        try:
            lint = self.lint(int(project["id"]), found.text)
        except ApiFailed as error:
            if error.status == 403:  # the token may read the project, but not lint its file
                return ""
            raise
        return f"{path} is not valid: {'; '.join(lint.errors)}" if lint.errors else ""

    def merge_request(self, source: str, target: str) -> MergeRequest | None:
        """The open merge request from one branch into another; None where there is none."""
        query = {"state": "opened", "source_branch": source, "target_branch": target}
        found = self.api.get_list(f"{self.address}/merge_requests", query)
        return MergeRequest(str(found[0]["web_url"])) if found else None

    def open_merge_request(self, source: str, target: str, title: str) -> None:
        """Opens a merge request that deletes its source branch once it is merged."""
        data = {"source_branch": source, "target_branch": target, "title": title, "remove_source_branch": True}
        self.api.post(f"{self.address}/merge_requests", data)

    def _file(self, path: str) -> str:
        return f"{self.address}/repository/files/{quote(path, safe='')}"

    def _branch(self, name: str) -> str:
        return f"{self.address}/repository/branches/{quote(name, safe='')}"

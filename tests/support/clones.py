"""A local git repository that is pushed to the stand-in of GitLab."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.web import answer_of

# Part of a seed: a group with members of two roles.
TEAM = {
    "groups": {"team": {}},
    "members": [
        {"user": "dev", "path": "team", "role": "developer"},
        {"user": "reader", "path": "team", "role": "reporter"},
    ],
}


class Clone:
    """A local repository, and a GitLab to push to."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        folder.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str, code: int = 0) -> str:
        """Runs git; its output and errors."""
        who = {f"GIT_{role}_{part}": "a@b" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
        fixed = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_ASKPASS": "true", "LC_ALL": "C"}
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **fixed, **who}
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )
        assert (done.returncode != 0) == (code != 0), done.stderr
        return done.stdout + done.stderr

    def commit(self, text: str, path: str = "README") -> str:
        """Commits a file; the commit's id."""
        (self.folder / path).write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", f"write {path}")
        return self.git("rev-parse", "HEAD").strip()

    def push(self, token: str, *refs: str, project: str = "team/app", code: int = 0) -> str:
        """Pushes with a token as the password."""
        address = self.url.replace("://", f"://oauth2:{token}@")
        return self.git("push", f"{address}/{project}.git", *(refs or ("HEAD:refs/heads/main",)), code=code)

    def ask(self, path: str, method: str = "GET", token: str = "T", **fields: Any) -> Any:
        """The answer of the API of the first project; the status of a refusal. Texts stay texts."""
        body = json.dumps(fields).encode() if fields else None
        headers = {"PRIVATE-TOKEN": token, "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/api/v4/projects/1{path}", body, headers, method=method)
        status, text, answered = answer_of(request)
        if status >= 400:
            return status
        return text.decode() if answered["Content-Type"] == "text/plain" else json.loads(text)

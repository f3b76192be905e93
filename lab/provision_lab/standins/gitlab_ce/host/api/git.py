"""Projects' repositories: bare repositories of git on the disk.

Its hook refuses what GitLab refuses. Source of the texts: GitLab's lib/gitlab/checks/branch_check.rb.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..layout import program_path
from .store import Record, Store

Blob = tuple[str, str]
"""A file in a tree: its mode and the id of its content."""

_PRE_RECEIVE: Final = """\
#!/bin/sh
# The checks of GitLab's Gitlab::Checks::BranchCheck. STANDIN_PROTECTED and STANDIN_DENIED are lists of refs.
refuse() { printf 'GitLab: %s\\n' "$1" >&2; exit 1; }
while read -r old new ref; do
  case $new in *[!0]*) deleted= ;; *) deleted=yes ;; esac
  if [ "$ref" = "$STANDIN_DEFAULT" ] && [ "$deleted" ]; then
    refuse 'The default branch of a project cannot be deleted.'
  fi
  case " $STANDIN_PROTECTED " in *" $ref "*) protected=yes ;; *) protected= ;; esac
  if [ "$protected" ] && [ "$deleted" ]; then
    refuse 'You can only delete protected branches using the web interface.'
  fi
  case $old in *[!0]*)
    if [ "$protected" ] && ! git merge-base --is-ancestor "$old" "$new"; then
      refuse 'You are not allowed to force push code to a protected branch on this project.'
    fi ;;
  esac
  case " $STANDIN_DENIED " in *" $ref "*)
    refuse 'You are not allowed to push code to protected branches on this project.' ;;
  esac
done
"""


@dataclass(frozen=True)
class Repository:
    """A bare repository."""

    path: Path
    default_branch: str

    def create(self) -> None:
        """Makes it, unless it exists."""
        if self.path.exists():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.run("init", "--quiet", "--bare", "--template=", f"--initial-branch={self.default_branch}")
        hook = self.path / "hooks/pre-receive"
        hook.parent.mkdir()
        hook.write_text(_PRE_RECEIVE)
        hook.chmod(0o755)

    def run(self, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> bytes:
        """The output of git. Raises CalledProcessError."""
        done = subprocess.run(
            ["git", "--git-dir", str(self.path), *arguments],
            input=stdin,
            capture_output=True,
            check=True,
            env=environment(env),
        )
        return done.stdout

    def ask(self, *arguments: str) -> str:
        """The output of a question, without the newline at its end; "" where git has no answer."""
        try:
            return self.run(*arguments).decode(errors="replace").rstrip("\n")
        except subprocess.CalledProcessError:
            return ""

    @property
    def is_empty(self) -> bool:
        """Whether it has no branch."""
        return not self.path.exists() or not self.ask("for-each-ref", "--count=1", "refs/heads")

    def heads(self) -> dict[str, str]:
        """The commits of all branches and tags, by their full names."""
        if not self.path.exists():
            return {}
        shown = "%(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end) %(refname)"
        lines = self.ask("for-each-ref", f"--format={shown}", "refs/heads", "refs/tags").splitlines()
        return {ref: commit for commit, _, ref in (line.partition(" ") for line in lines)}

    def head(self, branch: str) -> str:
        """The id of a branch's commit; "" where there is none."""
        return self.ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"refs/heads/{branch}^{{commit}}")

    def commit_of(self, ref: str) -> str:
        """The id of the commit that a branch, a tag or an id names; "" for none."""
        full = (ref,) if ref.startswith("refs/") else (f"refs/heads/{ref}", f"refs/tags/{ref}", ref)
        for name in full:
            if found := self.ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"):
                return found
        return ""

    def blob(self, commit: str, path: str) -> Blob | None:
        """A file of a commit."""
        entry = self.ask("--literal-pathspecs", "ls-tree", commit, "--", path)
        mode, kind, name = entry.partition("\t")[0].split() if entry else ("", "", "")
        return (mode, name) if kind == "blob" else None

    def commit_file(
        self, branch: str, parent: str, path: str, content: bytes, message: str, author: tuple[str, str]
    ) -> str:
        """Commits one file on top of `parent`, which is "" for the first commit, and moves the branch there."""
        found = self.blob(parent, path) if parent else None
        blob = self.run("hash-object", "-w", "--stdin", stdin=content).decode().strip()
        with tempfile.TemporaryDirectory() as folder:
            index = {"GIT_INDEX_FILE": f"{folder}/index"}
            if parent:
                self.run("read-tree", parent, env=index)
            entry = f"{found[0] if found else '100644'},{blob},{path}"
            self.run("update-index", "--add", "--cacheinfo", entry, env=index)
            tree = self.run("write-tree", env=index).decode().strip()
        return self.commit_tree(branch, tree, [parent] if parent else [], message, author)

    def commit_tree(self, branch: str, tree: str, parents: list[str], message: str, author: tuple[str, str]) -> str:
        """Commits a tree and moves the branch there."""
        name, email = author
        who = {
            f"GIT_{role}_{part}": value
            for role in ("AUTHOR", "COMMITTER")
            for part, value in (("NAME", name), ("EMAIL", email))
        }
        above = [word for one in parents for word in ("-p", one)]
        commit = self.run("commit-tree", tree, *above, stdin=message.encode(), env=who).decode().strip()
        self.run("update-ref", f"refs/heads/{branch}", commit)
        return commit


def repository_of(store: Store, project: Record) -> Repository:
    """The repository of a project; `create` makes it when it is needed for the first time."""
    return Repository(store.repositories / f"{project['id']}.git", project["default_branch"])


def adopt_first_branch(store: Store, project: Record) -> None:
    """Makes the branch of an empty repository's first commit the default one, as GitLab does."""
    repository = repository_of(store, project)
    heads = repository.ask("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads").split("\n")
    if heads[0] and project["default_branch"] not in heads:
        project["default_branch"] = heads[0]
        repository.run("symbolic-ref", "HEAD", f"refs/heads/{heads[0]}")
        store.changed()


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for git: no settings of the machine."""
    fixed = {"PATH": program_path(), "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
    return {**fixed, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, **(more or {})}

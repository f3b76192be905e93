"""The task `source`, with the real engine and real git, against the lab's GitLab: repositories, folders, divergence, races."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from provision.errors import UsageError
from tests.support.estate import PROJECT, Estate

pytestmark = pytest.mark.slow
ADDRESS = "/projects/root%2Fhello"
SOURCE = f'[projects."{PROJECT}"]\nsource = "hello"\n'
PIPELINE = f'[projects."{PROJECT}".pipeline]\ntemplate = "registry"\ntest = "npm test"\n'
BOTH = SOURCE + PIPELINE
CI = ".gitlab-ci.yml"


class Folder:
    """The folder `hello` beside the inventory, which is a git repository or becomes one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def git(self, *arguments: str) -> str:
        """Runs git there, as a user does."""
        who = {f"GIT_{role}_{part}": "sammy@x" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
        env = {"PATH": os.environ["PATH"], "HOME": str(self.path), "GIT_CONFIG_GLOBAL": os.devnull, **who}
        done = subprocess.run(["git", *arguments], cwd=self.path, env=env, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def write(self, text: str, path: str = "README") -> None:
        """Writes a file."""
        place = self.path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def commit(self, text: str, path: str = "README") -> str:
        """Writes a file and commits everything; the commit's id."""
        if not (self.path / ".git").exists():
            self.git("init", "-q", "-b", "trunk")
        self.write(text, path)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", f"{path}: {text.strip()}")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def hello(estate: Estate) -> Folder:
    """The source."""
    return Folder(estate.folder / "hello")


def commits(estate: Estate) -> list[dict[str, Any]]:
    """The default branch's commits in GitLab, the newest first."""
    return list(estate.ask("GET", f"{ADDRESS}/repository/commits"))


def head(estate: Estate) -> str:
    """The default branch's commit."""
    return str(commits(estate)[0]["id"])


def files(estate: Estate) -> dict[str, str]:
    """The files of the default branch, with their modes."""
    listed = estate.ask("GET", f"{ADDRESS}/repository/tree?recursive=true&per_page=100")
    return {one["path"]: one["mode"] for one in listed if one["type"] != "tree"}


class TestRepository:
    """The source is a git repository."""

    def test_bare_then_converged(self, estate: Estate, hello: Folder) -> None:
        """Its commits are pushed as they are; nothing is asked again, and one request when the task is named."""
        hello.commit("one\n")
        last = hello.commit("two\n")
        report = estate.run("source", SOURCE)
        assert (report.code, report.summaries) == (0, ["push 2 commits of hello to branch main of project root/hello"])
        assert (head(estate), len(commits(estate))) == (last, 2)
        assert "+two" in report.diffs
        again = estate.run("source", SOURCE)
        assert (again.summaries, again.messages, estate.asked) == ([], [], [])
        named = estate.run("source", SOURCE, named="source")
        assert (named.summaries, named.messages) == ([], [])
        assert estate.asked == [f"GET {ADDRESS}/repository/commits/HEAD"]

    def test_a_further_commit(self, estate: Estate, hello: Folder) -> None:
        """Only what is new is in the diff."""
        hello.commit("one\n")
        estate.run("source", SOURCE)
        last = hello.commit("two\n", "src/app.py")
        report = estate.run("source", SOURCE)
        assert report.summaries == ["push 1 commit of hello to branch main of project root/hello"]
        assert (head(estate), "+one" in report.diffs) == (last, False)

    def test_check_mode(self, estate: Estate, hello: Folder) -> None:
        """Nothing is pushed or recorded."""
        hello.commit("one\n")
        report = estate.run("source", SOURCE, check=True)
        assert report.summaries == ["push 1 commit of hello to branch main of project root/hello"]
        assert (commits(estate), estate.state) == ([], {})

    def test_the_record_is_lost(self, estate: Estate, hello: Folder) -> None:
        """What GitLab has is compared, and recorded without a change."""
        hello.commit("one\n")
        estate.run("source", BOTH)
        estate.forget()
        before = head(estate)
        report = estate.run("source", BOTH)
        assert (report.summaries, head(estate)) == ([], before)
        assert list(estate.records("source")) == ["gitlab source/root/hello"]

    def test_the_repository_stays_unchanged(self, estate: Estate, hello: Folder) -> None:
        """No object, no ref, no hook of it is touched; its hooks and its settings about servers do not count."""
        hello.commit("one\n")
        hello.write("#!/bin/sh\ntouch $GIT_DIR/ran; exit 1\n", ".git/hooks/pre-push")
        (hello.path / ".git/hooks/pre-push").chmod(0o755)
        hello.git("config", "url.http://127.0.0.1:9/.insteadOf", estate.web.url)
        hello.git("config", "http.proxy", "http://127.0.0.1:9")
        before = sorted((str(one), one.stat().st_mtime_ns) for one in hello.path.rglob("*") if one.is_file())
        assert estate.run("source", BOTH).code == 0
        assert sorted((str(one), one.stat().st_mtime_ns) for one in hello.path.rglob("*") if one.is_file()) == before

    def test_uncommitted_changes(self, estate: Estate, hello: Folder) -> None:
        """They are not pushed, and every run says so."""
        last = hello.commit("one\n")
        hello.write("two\n")
        text = "project root/hello: hello has changes that are not committed: they are not pushed"
        assert estate.run("source", SOURCE).messages == [text]
        assert estate.run("source", SOURCE).messages == [text]
        assert head(estate) == last

    def test_a_bare_and_a_shallow_one_and_a_work_tree(self, estate: Estate, hello: Folder) -> None:
        """All kinds of repositories are read."""
        hello.commit("one\n")
        estate.run("source", SOURCE)
        hello.commit("two\n")
        hello.git("clone", "-q", "--bare", ".", "../bare.git")
        hello.git("clone", "-q", "--depth=1", f"file://{hello.path}", "../shallow")
        hello.git("worktree", "add", "-q", "../tree", "-b", "other")
        for name in ("bare.git", "tree"):
            text = SOURCE.replace('"hello"', f'"{name}"')
            (found,) = estate.run("source", text, check=True).summaries
            assert found.startswith("push 1 commit")
        report = estate.run("source", SOURCE.replace('"hello"', '"shallow"'))
        assert "shallow is a shallow clone" in report.error.text
        assert "git fetch --unshallow" in report.error.hint

    def test_a_submodule(self, estate: Estate, hello: Folder) -> None:
        """It is pushed as git does: the commit's id, and .gitmodules."""
        inner = Folder(estate.folder / "inner")
        inner.commit("inner\n")
        hello.commit("one\n")
        hello.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner.path), "lib")
        hello.commit("two\n")
        assert estate.run("source", SOURCE).code == 0
        assert files(estate) == {"README": "100644", ".gitmodules": "100644", "lib": "160000"}

    def test_without_a_commit(self, estate: Estate, hello: Folder) -> None:
        """It is refused."""
        hello.git("init", "-q")
        report = estate.run("source", SOURCE)
        assert "its current branch cannot be read" in report.error.text
        assert "make a first commit there" in report.error.hint


class TestPipeline:
    """The rendered pipeline is in a commit on top of the repository's."""

    def test_on_top(self, estate: Estate, hello: Folder) -> None:
        """A second run changes nothing, and neither does the task pipeline."""
        last = hello.commit("one\n")
        report = estate.run("source", BOTH)
        assert report.summaries == ["push 1 commit of hello and its pipeline to branch main of project root/hello"]
        assert "-c 'npm test'" in estate.committed()
        top = commits(estate)[0]
        assert (top["parent_ids"], top["committer_name"]) == ([last], "provision")
        for task in ("source", "pipeline"):
            assert estate.run(task, BOTH, named=task).summaries == []
            again = estate.run(task, BOTH, named=task)
            assert (again.summaries, again.messages) == ([], [])

    def test_the_next_commits(self, estate: Estate, hello: Folder) -> None:
        """Each push is a fast-forward that keeps the repository's own commits."""
        hello.commit("one\n")
        estate.run("source", BOTH)
        first = head(estate)
        last = hello.commit("two\n")
        report = estate.run("source", BOTH)
        assert report.summaries == ["push 1 commit of hello and its pipeline to branch main of project root/hello"]
        assert commits(estate)[0]["parent_ids"] == [last, first]
        assert estate.run("source", BOTH, named="source").summaries == []
        hello.commit("three\n")
        assert estate.run("source", BOTH).code == 0
        assert (estate.committed(path="README"), "npm test" in estate.committed()) == ("three\n", True)

    def test_a_changed_pipeline(self, estate: Estate, hello: Folder) -> None:
        """It is pushed alone. `provision pipeline` reports that it differs and leaves it to the source."""
        last = hello.commit("one\n")
        estate.run("source", BOTH)
        other = BOTH.replace("npm test", "npm run other")
        note = "the pipeline of project root/hello differs: `provision source` pushes it with the source"
        assert estate.run("pipeline", other, named="pipeline").messages == [note]
        report = estate.run("source", other)
        assert report.summaries == ["push the pipeline of hello to branch main of project root/hello"]
        assert "npm run other" in estate.committed()
        assert commits(estate)[0]["parent_ids"][0] == last

    def test_the_user_pulls(self, estate: Estate, hello: Folder) -> None:
        """After a pull the repository has the pipeline's commit: its own commits are pushed as they are."""
        hello.commit("one\n")
        estate.run("source", BOTH)
        hello.git(
            "-c",
            "pull.rebase=false",
            "pull",
            "-q",
            f"{estate.behind.replace('://', '://x:the-api-token@')}/{PROJECT}.git",
            "main",
        )
        last = hello.commit("two\n")
        assert estate.run("source", BOTH).summaries == ["push 1 commit of hello to branch main of project root/hello"]
        assert head(estate) == last

    def test_lint_errors(self, estate: Estate, hello: Folder) -> None:
        """Nothing is pushed."""
        hello.commit("one\n")
        folder = estate.folder / "templates/pipelines"
        folder.mkdir(parents=True)
        (folder / "mine.gitlab-ci.yml.j2").write_text("job: {scripts: [x]}\n")
        from provision import templating

        templating.use_templates_of([folder.parent])
        try:
            report = estate.run("source", BOTH.replace('"registry"', '"mine"'))
        finally:
            templating.use_templates_of([])
        assert "GitLab's lint rejects the pipeline of project root/hello" in report.error.text
        assert commits(estate) == []

    def test_another_place(self, estate: Estate, hello: Folder) -> None:
        """The project's own path of its pipeline is used."""
        estate.ask("PUT", ADDRESS, ci_config_path="ci/main.yml")
        hello.commit("one\n")
        estate.run("source", BOTH)
        assert "npm test" in estate.committed(path="ci/main.yml")


class TestFolder:
    """The source is a plain folder."""

    def test_bare_changed_converged(self, estate: Estate, hello: Folder) -> None:
        """Each state is a commit on top of the last; .gitignore, modes and links count as in git."""
        hello.write("one\n")
        hello.write("#!/bin/sh\n", "bin/run")
        (hello.path / "bin/run").chmod(0o755)
        (hello.path / "link").symlink_to("README")
        hello.write("node_modules\n", ".gitignore")
        hello.write("x", "node_modules/x/index.js")
        report = estate.run("source", BOTH)
        assert report.summaries == ["push 5 files of hello to branch main of project root/hello"]
        expected = {"README": "100644", "bin/run": "100755", "link": "120000", ".gitignore": "100644", CI: "100644"}
        assert files(estate) == expected
        assert estate.run("source", BOTH, named="source").summaries == []
        first = head(estate)
        hello.write("two\n")
        (hello.path / "link").unlink()
        report = estate.run("source", BOTH)
        assert report.summaries == ["push 2 files of hello to branch main of project root/hello"]
        assert ("-one" in report.diffs, "+two" in report.diffs) == (True, True)
        assert commits(estate)[0]["parent_ids"] == [first]
        assert "link" not in files(estate)
        assert not (hello.path / ".git").exists()

    def test_the_record_is_lost(self, estate: Estate, hello: Folder) -> None:
        """Files are compared, not commits."""
        hello.write("one\n")
        estate.run("source", SOURCE)
        before = head(estate)
        estate.forget()
        os.utime(hello.path / "README", (1, 1))
        assert (estate.run("source", SOURCE).summaries, head(estate)) == ([], before)

    def test_somebody_committed(self, estate: Estate, hello: Folder) -> None:
        """Their commit is not overwritten; a folder with their change is accepted, and built on."""
        hello.write("one\n")
        estate.run("source", SOURCE)
        estate.commit("theirs\n", "README")
        before = head(estate)
        hello.write("two\n")
        report = estate.run("source", SOURCE)
        assert "branch main has a commit of somebody else on top" in report.error.text
        assert ("clone " in report.error.hint, head(estate)) == (True, before)
        hello.write("theirs\n")
        assert (estate.run("source", SOURCE).summaries, head(estate)) == ([], before)
        hello.write("three\n")
        assert estate.run("source", SOURCE).summaries == ["push 1 file of hello to branch main of project root/hello"]

    def test_in_a_repository(self, estate: Estate, hello: Folder) -> None:
        """A folder of a repository, such as the inventory's, is a plain folder."""
        outer = ["git", "-C", str(estate.folder), "init", "-q"]
        subprocess.run(outer, check=True)
        hello.write("one\n")
        estate.run("source", SOURCE)
        assert files(estate) == {"README": "100644"}

    def test_a_repository_inside(self, estate: Estate, hello: Folder) -> None:
        """It would be pushed as a submodule that nobody can fetch: it is refused."""
        hello.write("one\n")
        Folder(hello.path / "vendor").commit("x\n")
        report = estate.run("source", SOURCE)
        assert "vendor is a git repository in a plain folder" in report.error.text

    @pytest.mark.usefixtures("hello")
    def test_empty_and_missing(self, estate: Estate) -> None:
        """An empty folder is refused, a missing one before anything is contacted."""
        assert "it has no files to push" in estate.run("source", SOURCE).error.text
        with pytest.raises(UsageError, match=r'projects."root/hello".source: .*/missing is not a folder'):
            estate.run("source", SOURCE.replace('"hello"', '"missing"'))


class LargeFiles:
    """The part of GitLab that stores large files: the batch request and the upload. Source: git-lfs's docs/api/batch.md."""

    def __init__(self, estate: Estate, reply: Any) -> None:
        self.stored: dict[str, bytes] = {}
        self.logins: list[str] = []
        forward = estate.web.answer

        def answer(asked: Any) -> Any:
            if "/info/lfs/" not in asked.path:
                return forward(asked)
            name = asked.path.rpartition("/")[2]
            if asked.method == "PUT":
                self.stored[name] = asked.body
                return reply(200, b"")
            if "authorization" not in asked.headers:
                return reply(401, b"{}", {"LFS-Authenticate": 'Basic realm="GitLab"', "Content-Type": KIND})
            if name == "verify":
                return reply(200, b'{"ours": [], "theirs": []}', {"Content-Type": KIND})
            self.logins.append(asked.headers["authorization"])
            objects = [self._object(estate, one) for one in json.loads(asked.body)["objects"]]
            return reply(200, json.dumps({"transfer": "basic", "objects": objects}).encode(), {"Content-Type": KIND})

        estate.web.answer = answer

    def _object(self, estate: Estate, one: dict[str, Any]) -> dict[str, Any]:
        place = f"{estate.web.url}/{PROJECT}.git/info/lfs/objects/{one['oid']}"
        return {
            **one,
            "authenticated": True,
            "actions": {} if one["oid"] in self.stored else {"upload": {"href": place}},
        }


KIND = "application/vnd.git-lfs+json"


class TestLargeFiles:
    """Files of Git LFS go to GitLab before the commit that names them."""

    @pytest.mark.parametrize("repository", [True, False])
    def test_stored(self, estate: Estate, hello: Folder, reply: Any, repository: bool) -> None:
        """The branch has the pointer, and the store the file; the store's login is the token."""
        store = LargeFiles(estate, reply)
        hello.write("*.bin filter=lfs diff=lfs merge=lfs -text\n", ".gitattributes")
        if repository:
            hello.git("init", "-q", "-b", "main")
            hello.git("lfs", "install", "--local", "--skip-repo")
            hello.commit("large\n", "model.bin")
        else:
            hello.write("large\n", "model.bin")
        report = estate.run("source", SOURCE)
        assert report.code == 0, report.errors
        name = hashlib.sha256(b"large\n").hexdigest()
        assert store.stored == {name: b"large\n"}
        assert f"oid sha256:{name}" in estate.committed(path="model.bin")
        login = base64.b64encode(b"oauth2:the-api-token").decode()
        assert set(store.logins) == {f"Basic {login}"}
        assert estate.run("source", SOURCE, named="source").summaries == []

    def test_without_the_program(self, estate: Estate, hello: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is refused before anything is pushed."""
        hello.write("*.bin filter=lfs diff=lfs merge=lfs -text\n", ".gitattributes")
        programs = estate.folder / "bin"
        programs.mkdir()
        (programs / "git").symlink_to(shutil.which("git") or "")
        monkeypatch.setenv("PATH", str(programs))
        report = estate.run("source", SOURCE)
        assert "git-lfs is not installed on this machine" in report.error.text


class TestNewProject:
    """The project is created by the task accounts."""

    NEW = '[projects."root/fresh"]\ncreate = true\ndefault_branch = "trunk"\nsource = "hello"\n'

    def test_before_it_exists(self, estate: Estate, hello: Folder) -> None:
        """Check mode predicts the comparison; without the project the push requires the task."""
        hello.write("one\n")
        report = estate.run("source", self.NEW, check=True)
        assert (report.code, report.messages) == (0, ["would compare the source of project root/fresh with GitLab"])
        assert "it requires accounts" in estate.run("source", self.NEW).error.text

    def test_the_first_push_makes_the_default_branch(self, estate: Estate, hello: Folder) -> None:
        """The branch of the inventory."""
        hello.write("one\n")
        made = estate.run("accounts", self.NEW)
        assert made.code == 0, made.errors
        assert estate.run("source", self.NEW).summaries == [
            "push 1 file of hello to branch trunk of project root/fresh"
        ]
        assert estate.ask("GET", "/projects/root%2Ffresh")["default_branch"] == "trunk"
        assert estate.run("source", self.NEW, named="source").summaries == []


class TestDiverged:
    """Commits of others are never overwritten."""

    def test_diverged(self, estate: Estate, hello: Folder) -> None:
        """Both sides have commits: it is refused, with what to do; after that it works."""
        hello.commit("one\n")
        estate.run("source", BOTH)
        estate.commit("theirs\n", "other")
        hello.commit("two\n")
        before = head(estate)
        report = estate.run("source", BOTH)
        assert "branch main and hello have diverged: " in report.error.text
        assert "(by hand, by root) is not in hello" in report.error.text
        assert "git pull" in report.error.hint
        assert head(estate) == before
        url = f"{estate.behind.replace('://', '://x:the-api-token@')}/{PROJECT}.git"
        hello.git("-c", "pull.rebase=false", "pull", "-q", url, "main")
        assert estate.run("source", BOTH).code == 0
        assert set(files(estate)) == {"README", CI, "other"}

    def test_rewritten(self, estate: Estate, hello: Folder) -> None:
        """An amended commit has diverged, also under a pipeline's commit."""
        hello.commit("one\n")
        estate.run("source", BOTH)
        hello.git("commit", "-q", "--amend", "-m", "rewritten")
        assert "have diverged" in estate.run("source", BOTH).error.text

    def test_behind(self, estate: Estate, hello: Folder) -> None:
        """GitLab has more commits: nothing is pushed, and it is not an error; another pipeline cannot be pushed."""
        hello.commit("one\n")
        estate.run("source", BOTH)
        estate.commit("theirs\n", "other")
        report = estate.run("source", BOTH, named="source")
        assert (report.code, report.summaries) == (0, [])
        assert "branch main is ahead of hello, nothing is pushed: run `git pull" in report.messages[0]
        report = estate.run("source", BOTH.replace("npm test", "npm run x"), named="source")
        assert "branch main is ahead of hello, and its pipeline differs" in report.error.text

    def test_a_lost_race(self, estate: Estate, hello: Folder) -> None:
        """A commit between observation and push is observed; here it has diverged."""
        hello.commit("one\n")
        estate.run("source", SOURCE)
        hello.commit("two\n")
        pushes: list[str] = []

        def meddle(method: str, path: str) -> None:
            if method == "POST" and path.endswith("git-receive-pack") and not pushes:
                pushes.append(path)
                estate.commit("theirs\n", "other")

        estate.before = meddle
        report = estate.run("source", SOURCE)
        assert any("in the meantime: observing again" in one for one in report.messages)
        assert "have diverged" in report.error.text

    def test_the_folder_changes_during_the_run(self, estate: Estate, hello: Folder) -> None:
        """What is pushed was planned: the folder is observed again."""
        hello.write("one\n")
        done: list[str] = []

        def meddle(_: str, path: str) -> None:
            if path.endswith("service=git-upload-pack") and not done:
                done.append(path)
                hello.write("two\n")

        estate.before = meddle
        report = estate.run("source", SOURCE)
        assert report.code == 0
        assert any("the source changed in the meantime" in one for one in report.messages)
        assert estate.committed(path="README") == "two\n"
        assert estate.run("source", SOURCE, named="source").summaries == []


class TestRefused:
    """GitLab's refusals, with their reasons."""

    @pytest.mark.parametrize(
        ("token", "text", "hint"),
        [
            ("wrong", "401", "api_token is not valid"),
            ("dev", "You are not allowed to push code to protected branches on this project.", "role Maintainer"),
        ],
    )
    def test_by_role(self, estate: Estate, hello: Folder, token: str, text: str, hint: str) -> None:
        """The task fails with GitLab's reason."""
        hello.commit("one\n")
        report = estate.run("source", SOURCE, token=token)
        assert text in report.error.text
        assert hint in report.error.hint

    def test_a_missing_project(self, estate: Estate, hello: Folder) -> None:
        """It is not created."""
        hello.commit("one\n")
        report = estate.run("source", SOURCE.replace(PROJECT, "root/missing"))
        assert "the project does not exist, or gitlab.api_token may not see it" in report.error.text

    @pytest.mark.parametrize("key", ['branch = "ci"', "merge_request = true"])
    def test_two_ways_for_the_pipeline(self, estate: Estate, key: str) -> None:
        """A pipeline that is pushed with the source has no branch of its own."""
        with pytest.raises(UsageError, match="exclude each other: the pipeline is pushed with the source"):
            estate.host(f"{BOTH}{key}\n")


class TestToken:
    """The token reaches git, and nothing else."""

    def test_no_argument_no_environment_no_file(
        self, estate: Estate, hello: Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A git that records its arguments, its environment and its folder never has the token in them."""
        seen, real = estate.folder / "seen", shutil.which("git")
        wrapper = estate.folder / "bin/git"
        wrapper.parent.mkdir()
        wrapper.write_text(
            f'#!/bin/sh\nd=; for a; do [ "$last" = --git-dir ] && d=$a; last=$a; done\n'
            f'{{ echo "$*"; env; [ -z "$d" ] || cat "$d"/config "$d"/HEAD; }} >>{seen} 2>/dev/null\nexec {real} "$@"\n'
        )
        wrapper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
        hello.commit("one\n")
        assert estate.run("source", SOURCE).code == 0
        text = seen.read_text()
        assert ("push --quiet" in text, "the-api-token" in text) == (True, False)
        sent = [one.headers.get("authorization", "") for one in estate.web.asked if "git-receive-pack" in one.path]
        assert any(one.startswith("Basic ") for one in sent)

    def test_a_redirect_is_not_followed(self, estate: Estate, hello: Folder, serve: Any, reply: Any) -> None:
        """Another server is not contacted, whatever GitLab answers."""
        other = serve(lambda _: reply(401, b"", {"WWW-Authenticate": 'Basic realm="x"'}))
        forward = estate.web.answer

        def answer(asked: Any) -> Any:
            if asked.path.startswith(f"/{PROJECT}.git"):
                return reply(301, b"", {"Location": other.url + asked.path})
            return forward(asked)

        estate.web.answer = answer
        hello.commit("one\n")
        report = estate.run("source", SOURCE)
        assert any(one.path.startswith(f"/{PROJECT}.git") for one in estate.web.asked)
        assert (report.code, other.asked) == (1, [])
        assert report.error.hint

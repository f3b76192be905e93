"""The task `pipeline`, with the real engine, against the lab's API: commits, merge requests, lint, races, local files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from provision import templating
from provision.engine import waiting
from provision.errors import UsageError
from provision.resources.delivery import pipeline as recipe
from provision.templating import environment
from tests.support.estate import PROJECT, Estate

pytestmark = pytest.mark.slow
TEXT = f'[projects."{PROJECT}".pipeline]\ntemplate = "registry"\ntest = "npm test"\n'
MERGE = f"{TEXT}merge_request = true\n"
FILE = "root%2Fhello/repository/files/.gitlab-ci.yml"
COMMIT = "commit .gitlab-ci.yml to branch main of project root/hello"
OPEN = "open a merge request with .gitlab-ci.yml from branch provision/pipeline to main of project root/hello"
UPDATE = "commit .gitlab-ci.yml to the merge request from branch provision/pipeline to main of project root/hello"


def requests(estate: Estate) -> list[dict[str, str]]:
    """All merge requests of the project, the newest first."""
    return list(estate.ask("GET", f"{estate.project}/merge_requests"))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """The folder for the user's own pipeline templates."""
    folder = tmp_path / "templates/pipelines"
    folder.mkdir(parents=True)
    templating.use_templates_of([folder.parent])
    yield folder
    templating.use_templates_of([])


class TestCommit:
    """The file is committed to a branch."""

    def test_bare(self, estate: Estate) -> None:
        """An empty repository: the file is linted and committed; the diff is the whole file."""
        report = estate.run("pipeline", TEXT)
        assert (report.code, report.summaries) == (0, [COMMIT])
        assert estate.asked == [
            "GET /projects/root%2Fhello",
            "POST /projects/1/ci/lint",
            f"POST /projects/{FILE}",
            "GET /projects/root%2Fhello",
            f"GET /projects/{FILE}",
        ]
        assert "+stages: [build, test, release]" in report.diffs
        assert "-c 'npm test'" in estate.committed()

    def test_converged(self, estate: Estate) -> None:
        """GitLab is asked again only when the task is named."""
        estate.run("pipeline", TEXT)
        again = estate.run("pipeline", TEXT)
        assert (again.summaries, again.messages, estate.asked) == ([], [], [])
        named = estate.run("pipeline", TEXT, named="pipeline")
        assert (named.summaries, named.messages) == ([], [])
        assert estate.asked == ["GET /projects/root%2Fhello", f"GET /projects/{FILE}"]

    def test_what_is_there_is_the_wanted_one(self, estate: Estate) -> None:
        """A file that is equal already is recorded without a change."""
        estate.run("pipeline", TEXT)
        estate.forget()
        report = estate.run("pipeline", TEXT)
        assert (report.summaries, [one for one in estate.asked if not one.startswith("GET")]) == ([], [])
        assert list(estate.records("pipeline")) == ["gitlab pipeline/root/hello"]

    def test_drift_by_hand(self, estate: Estate) -> None:
        """An edited file is replaced when the task is named; the diff shows the edit."""
        estate.run("pipeline", TEXT)
        estate.commit("theirs: {script: [x]}\n")
        report = estate.run("pipeline", TEXT, named="pipeline")
        assert report.summaries == [COMMIT]
        assert "-theirs: {script: [x]}" in report.diffs
        assert estate.bodies[estate.asked.index(f"PUT /projects/{FILE}")]["last_commit_id"]
        assert "npm test" in estate.committed()

    def test_check_mode(self, estate: Estate) -> None:
        """Check mode lints the file and commits nothing."""
        report = estate.run("pipeline", TEXT, check=True)
        assert report.summaries == [COMMIT]
        assert (estate.committed(), estate.state) == ("", {})

    def test_another_branch(self, estate: Estate) -> None:
        """A new branch is created from the default branch."""
        estate.commit("hello\n", "README.md")
        text = f'{TEXT}branch = "ci"\n'
        report = estate.run("pipeline", text)
        assert report.summaries == [COMMIT.replace("main", "ci")]
        assert (estate.committed("ci", "README.md"), estate.committed()) == ("hello\n", "")
        assert estate.run("pipeline", text, named="pipeline").summaries == []

    @pytest.mark.parametrize("same", [True, False])
    def test_another_branch_of_one_that_has_a_pipeline(self, estate: Estate, same: bool) -> None:
        """The file is changed on that branch; the default branch stays unchanged."""
        estate.run("pipeline", TEXT)
        text = f'{TEXT}branch = "ci"\n'.replace("npm test", "npm test" if same else "npm run other")
        assert estate.run("pipeline", text).summaries == [COMMIT.replace("main", "ci")]
        assert ("npm test" if same else "npm run other") in estate.committed("ci")
        assert "npm test" in estate.committed()

    def test_the_project_keeps_it_elsewhere(self, estate: Estate) -> None:
        """ci_config_path is used; one that is not a path is refused."""
        estate.ask("PUT", estate.project, ci_config_path="ci/main.yml")
        assert estate.run("pipeline", TEXT).summaries == [COMMIT.replace(".gitlab-ci.yml", "ci/main.yml")]
        assert "npm test" in estate.committed(path="ci/main.yml")
        estate.ask("PUT", estate.project, ci_config_path="ci.yml@root/other")
        report = estate.run("pipeline", TEXT, named="pipeline")
        assert "the project has its pipeline in another place: ci.yml@root/other" in report.error.text
        assert report.error.hint

    @pytest.mark.parametrize("first", [True, False])
    def test_a_lost_race(self, estate: Estate, first: bool) -> None:
        """A commit between observation and change is observed again before the file is committed."""
        if not first:
            estate.commit("before: {script: [x]}\n")
        done: list[int] = []

        def meddle(method: str, path: str) -> None:
            if method in ("POST", "PUT") and "/files/" in path and not done:
                done.append(1)
                estate.commit("theirs: {script: [x]}\n")

        estate.before = meddle
        report = estate.run("pipeline", TEXT)
        assert (report.code, report.summaries) == (0, [COMMIT])
        assert "another commit changed .gitlab-ci.yml in the meantime: observing again" in report.messages
        assert "-theirs: {script: [x]}" in report.diffs  # what is overwritten was seen
        assert "npm test" in estate.committed()

    def test_races_without_end(self, estate: Estate) -> None:
        """After a few attempts the task fails with the reason; the other commit stays."""
        count: list[int] = []

        def meddle(method: str, path: str) -> None:
            if method in ("POST", "PUT") and "/files/" in path:
                count.append(1)
                estate.commit(f"theirs: {{script: [{len(count)}]}}\n")

        estate.before = meddle
        report = estate.run("pipeline", TEXT)
        assert (report.code, report.error.error) == (1, "ChangedMeanwhile")
        assert estate.committed() == f"theirs: {{script: [{len(count)}]}}\n"
        assert estate.state == {}

    def test_a_protected_branch(self, estate: Estate) -> None:
        """The message has GitLab's reason, and the hint a solution."""
        body = {"message": "You are not allowed to push into this branch"}
        estate.faults({"method": "POST", "path": "*/repository/files/*", "status": 400, "body": body})
        report = estate.run("pipeline", TEXT)
        assert "not allowed to push" in report.error.text
        assert "merge_request = true" in report.error.hint
        assert estate.state == {}


class TestMergeRequest:
    """With merge_request the file is committed to our branch."""

    def test_its_life(self, estate: Estate) -> None:
        """It is opened once, updated when the settings change, and converged after the merge."""
        estate.commit("hello\n", "README.md")
        assert estate.run("pipeline", MERGE).summaries == [OPEN]
        (opened,) = requests(estate)
        assert (opened["state"], opened["title"], opened["target_branch"]) == (
            "opened",
            "Bring the pipeline up to date",
            "main",
        )
        assert estate.committed() == ""
        named = estate.run("pipeline", MERGE, named="pipeline")
        assert named.summaries == []
        assert named.messages == [
            f"the pipeline of project root/hello is in an open merge request: {opened['web_url']}"
        ]
        assert estate.run("pipeline", MERGE).messages == []
        other = MERGE.replace("npm test", "npm run all")
        assert estate.run("pipeline", other).summaries == [UPDATE]
        assert len(requests(estate)) == 1
        estate.ask("PUT", f"{estate.project}/merge_requests/1/merge", sha="")
        assert "npm run all" in estate.committed()
        assert estate.run("pipeline", other, named="pipeline").summaries == []

    def test_a_stale_branch(self, estate: Estate) -> None:
        """A branch of an earlier request is created again from the target branch."""
        estate.commit("old\n", "README.md")
        estate.ask(
            "POST", f"{estate.project}/repository/files/README.txt", branch="provision/pipeline", start_branch="main",
            commit_message="x", content="x",
        )  # fmt: skip
        estate.commit("new\n", "README.md")
        assert estate.run("pipeline", MERGE).summaries == [OPEN]
        assert estate.committed("provision/pipeline", "README.md") == "new\n"
        assert estate.committed("provision/pipeline", "README.txt") == ""

    def test_killed_before_the_request(self, estate: Estate) -> None:
        """When a run was killed after the commit, the next run opens the request."""
        estate.commit("hello\n", "README.md")
        estate.faults({"method": "POST", "path": "*/merge_requests", "status": 500, "times": 1})
        assert estate.run("pipeline", MERGE).code == 1
        assert estate.run("pipeline", MERGE).summaries == [OPEN]
        assert len(requests(estate)) == 1

    def test_nothing_to_merge_into(self, estate: Estate) -> None:
        """An empty repository and a missing branch are refused."""
        report = estate.run("pipeline", MERGE)
        assert "its repository is empty, so there is nothing to merge the pipeline into" in report.error.text
        estate.commit("hello\n", "README.md")
        report = estate.run("pipeline", f'{MERGE}branch = "stable"\n')
        assert "it has no branch stable" in report.error.text


class TestRefused:
    """Each gives one message, and nothing is committed."""

    def test_a_lint_error(self, estate: Estate, own: Path) -> None:
        """The message has the lint's errors, in check mode too."""
        (own / "mine.gitlab-ci.yml.j2").write_text("build:\n  stage: nowhere\n  scrpt: [make]\n")
        text = f'[projects."{PROJECT}".pipeline]\ntemplate = "mine"\n'
        for check in (True, False):
            report = estate.run("pipeline", text, check=check)
            assert (report.code, report.summaries, report.error.error) == (1, [], "Refused")
            assert "config contains unknown keys: scrpt" in report.error.text
            assert "chosen stage nowhere does not exist" in report.error.text
            assert "nothing was committed" in report.error.hint
        assert (estate.committed(), estate.state) == ("", {})

    def test_no_yaml(self, estate: Estate, own: Path) -> None:
        """The message has the place."""
        (own / "mine.gitlab-ci.yml.j2").write_text("build: [\n")
        report = estate.run("pipeline", f'[projects."{PROJECT}".pipeline]\ntemplate = "mine"\n')
        assert "line 2" in report.error.text

    @pytest.mark.parametrize(("status", "hint"), [(401, "gitlab.api_token"), (403, "owner"), (502, "gitlab-ctl tail")])
    @pytest.mark.parametrize("place", ["/api/v4/projects/root%2Fhello", "*/ci/lint", "*/repository/files/*"])
    def test_gitlab_refuses(self, estate: Estate, status: int, hint: str, place: str) -> None:
        """At each request."""
        estate.faults({"path": place, "status": status})
        report = estate.run("pipeline", TEXT)
        assert (report.code, report.summaries, estate.state) == (1, [], {})
        assert str(status) in report.error.text
        assert hint in report.error.hint

    @pytest.mark.parametrize(
        ("method", "place"),
        [
            ("GET", "/api/v4/projects/root%2Fhello"),
            ("POST", "*/ci/lint"),
            ("GET", "*/repository/files/*"),
            ("POST", "*/repository/files/*"),
        ],
    )
    def test_gitlab_starts(self, estate: Estate, method: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """502 at any request, twice: it is repeated, and there is one commit."""
        monkeypatch.setattr(waiting, "_INTERVAL_SECONDS", 0.01)
        estate.ready_timeout = 60
        estate.faults({"path": place, "method": method, "status": 502, "times": 5})
        report = estate.run("pipeline", TEXT)
        assert (report.code, len(report.summaries)) == (0, 1), report.errors
        assert report.messages[0].startswith("waiting for at most 60 s: ")
        assert estate.committed() != ""

    def test_no_such_project(self, estate: Estate) -> None:
        """No project is created."""
        report = estate.run("pipeline", TEXT.replace("hello", "helo"))
        assert "the project does not exist, or gitlab.api_token may not see it" in report.error.text

    def test_gitlab_is_not_reached(self, estate: Estate) -> None:
        """Check mode only reports it; a run fails."""
        assert estate.run("pipeline", TEXT, check=True, url="http://127.0.0.1:9").code == 0
        assert "cannot be reached" in estate.run("pipeline", TEXT, url="http://127.0.0.1:9").error.text


def validate(estate: Estate, text: str) -> None:
    """Input that is checked before a host is contacted, when the task is named."""
    for one in estate.resources("pipeline", text):
        one.validate()


class TestBadInput:
    """Told before anything is contacted."""

    def test_an_unknown_template(self, estate: Estate) -> None:
        """The message names the nearest one."""
        with pytest.raises(
            UsageError, match="no template has the name 'registri'; did you mean \"registry\""
        ) as caught:
            estate.resources("pipeline", TEXT.replace('"registry"', '"registri"'))
        assert "templates/pipelines/NAME.gitlab-ci.yml.j2" in caught.value.hint

    @pytest.mark.parametrize(("template", "missing"), [("registry", "test"), ("dockerhub", "image")])
    def test_what_a_template_needs(self, estate: Estate, template: str, missing: str) -> None:
        """The message has the inventory's key."""
        with pytest.raises(
            UsageError,
            match=rf"pipeline\.{missing} is missing: the template pipelines/{template}\.gitlab-ci\.yml\.j2 needs it",
        ):
            validate(estate, f'[projects."{PROJECT}".pipeline]\ntemplate = "{template}"\n')

    def test_a_broken_template_of_ones_own(self, estate: Estate, own: Path) -> None:
        """The message has the template's name and the reason."""
        (own / "registry.gitlab-ci.yml.j2").write_text("{{ nonsense }} {% if %}")
        with pytest.raises(UsageError, match=r"templates/pipelines/registry\.gitlab-ci\.yml\.j2: TemplateSyntaxError"):
            validate(estate, TEXT)

    def test_in_a_run_over_everything(self, estate: Estate) -> None:
        """It is rendered when GitLab is asked: then only this task fails."""
        report = estate.run("pipeline", TEXT.replace("test =", "message ="))
        assert (report.code, report.error.error) == (1, "Refused")
        assert "pipeline.test is missing" in report.error.text


def test_a_run_that_changes_nothing_renders_nothing(estate: Estate, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record holds template and values. A template that includes others is rendered, as these may have changed."""
    estate.run("pipeline", TEXT)
    with monkeypatch.context() as patch:
        patch.setattr(recipe, "render", lambda *_, **__: pytest.fail("rendered"))
        assert estate.run("pipeline", TEXT).summaries == []
    (own / "registry.gitlab-ci.yml.j2").write_text('{% include "pipelines/part" %}')
    for script in ("one", "two"):
        (own / "part").write_text(f"job: {{script: [{script}]}}")
        recipe._rendered.cache_clear()
        environment.cache_clear()  # Jinja compares modification times, and this file changes within one tick
        assert estate.run("pipeline", TEXT).summaries == [COMMIT]
    assert "two" in estate.committed()


def test_the_users_template_wins(estate: Estate, own: Path) -> None:
    """A user's template replaces the shipped one; it gets the options and the project."""
    (own / "registry.gitlab-ci.yml.j2").write_text(
        "{{ project | replace('/', '-') }}:\n  script: [{{ test | yaml }}]\n"
    )
    estate.run("pipeline", TEXT)
    assert estate.committed() == "root-hello:\n  script: [npm test]\n"


class TestLocalFile:
    """`path`: the file is written on this machine, and GitLab is not contacted."""

    TEXT = f'{TEXT}path = "out/ci.yml"\n'

    def test_written(self, estate: Estate, tmp_path: Path) -> None:
        """It is written once, then unchanged; after an edit it is written again."""
        (tmp_path / "out").mkdir()
        file = tmp_path / "out/ci.yml"
        report = estate.run("pipeline", self.TEXT)
        assert report.summaries == [f"write {file} on this machine"]
        assert "+stages: [build, test, release]" in report.diffs
        assert estate.run("pipeline", self.TEXT).summaries == []
        file.write_text("edited\n")
        file.chmod(0o600)
        assert estate.run("pipeline", self.TEXT).summaries == [f"write {file} on this machine"]
        assert file.stat().st_mode & 0o777 == 0o600
        assert [one.name for one in file.parent.iterdir()] == ["ci.yml"]
        assert estate.asked == []

    def test_check_mode(self, estate: Estate, tmp_path: Path) -> None:
        """Check mode writes nothing."""
        (tmp_path / "out").mkdir()
        assert len(estate.run("pipeline", self.TEXT, check=True).summaries) == 1
        assert list((tmp_path / "out").iterdir()) == []

    def test_no_such_folder(self, estate: Estate, tmp_path: Path) -> None:
        """The message has the reason and a hint."""
        report = estate.run("pipeline", self.TEXT)
        assert report.code == 1
        assert (
            f"{tmp_path / 'out/ci.yml'} on this machine cannot be written: No such file or directory"
            in report.error.text
        )
        assert "create its folder" in report.error.hint

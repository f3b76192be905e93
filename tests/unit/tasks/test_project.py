"""The task `project`, with the real engine, against the lab's API: bare, half done, converged, broken, and messages."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from provision.engine import waiting
from provision.engine.catalogue import load_inventory
from provision.errors import ConnectionLost, UsageError
from provision.inventory import Estate as Hosts
from provision.inventory import Member
from provision.tasks import project
from provision.testing import LocalSession
from tests.support.estate import BASE, PROJECT, Estate

pytestmark = pytest.mark.slow

RUNNER = (
    '[[runners]]\nname = "docker-builder"\nexecutor = "docker"\nrunners_extra\n[runners.docker]\nimage = "docker:28"\n'
)
FULL = f"""
[projects."{PROJECT}"]
shared_runners = false
runners = ["docker-builder"]
registry = "private"
[projects."{PROJECT}".variables]
PLAIN = "plain"
MASKED = {{ value = "masked-value", masked = true, protected = true, description = "for the tests" }}
HIDDEN = {{ value = "hidden-value", hidden = true }}
FILE = {{ value = "-----BEGIN KEY-----\\nline one\\n", type = "file", raw = true }}
SCOPED = [{{ value = "one", environment_scope = "production" }}, {{ value = "two", environment_scope = "review/*" }}]
"""
ALL = ["PLAIN *", "MASKED *", "HIDDEN *", "FILE *", "SCOPED production", "SCOPED review/*"]
LOOK = ["GET /projects/root%2Fhello", "GET /projects/root%2Fhello/variables", "GET /runners/all", "GET /runners/1"]


def variables(text: str) -> str:
    """An inventory with these variables."""
    return f'[projects."{PROJECT}".variables]\n{text}\n'


def test_bare(estate: Estate) -> None:
    """Everything is set, observed again and recorded; values are neither printed nor recorded."""
    estate.runner("docker-builder", locked=False)
    report = estate.run("project", FULL)
    assert report.code == 0
    assert report.summaries == [
        "set shared_runners_enabled, container_registry_access_level of project root/hello",
        "assign runner docker-builder (#1) to project root/hello and lock it",
        "create variable PLAIN of project root/hello",
        "create variable MASKED of project root/hello",
        "create variable HIDDEN of project root/hello",
        "create variable FILE of project root/hello",
        "create variable SCOPED for production of project root/hello",
        "create variable SCOPED for review/* of project root/hello",
    ]
    there = estate.ask("GET", estate.project)
    assert (there["shared_runners_enabled"], there["container_registry_access_level"]) == (False, "private")
    runner = estate.ask("GET", "/runners/1")
    assert (runner["locked"], [one["path_with_namespace"] for one in runner["projects"]]) == (
        True,
        [PROJECT, "root/other"],
    )
    kept = estate.kept
    assert list(kept) == ALL
    assert {name: one["value"] for name, one in kept.items()} == {
        "PLAIN *": "plain",
        "MASKED *": "masked-value",
        "HIDDEN *": "hidden-value",
        "FILE *": "-----BEGIN KEY-----\nline one\n",
        "SCOPED production": "one",
        "SCOPED review/*": "two",
    }
    masked = kept["MASKED *"]
    assert (masked["masked"], masked["protected"], masked["hidden"]) == (True, True, False)
    assert masked["description"] == "for the tests"
    assert (kept["HIDDEN *"]["masked"], kept["HIDDEN *"]["hidden"]) == (True, True)
    assert (kept["FILE *"]["variable_type"], kept["FILE *"]["raw"]) == ("file", True)
    assert estate.asked[-4:] == LOOK  # seen again, after the changes
    told_all = " ".join(map(str, report.events))
    state = (estate.home / "state.json").read_text()
    assert [
        value for value in ("plain-", "masked-value", "hidden-value", "line one") if value in told_all + state
    ] == []


def test_converged(estate: Estate) -> None:
    """GitLab is asked again only when the task is named, and nothing is changed."""
    estate.runner("docker-builder")
    estate.run("project", FULL)
    again = estate.run("project", FULL)
    assert (again.summaries, again.messages, estate.asked) == ([], [], [])
    named = estate.run("project", FULL, named="project")
    assert (named.summaries, named.messages, estate.asked) == ([], [], LOOK)


def test_partly_applied(estate: Estate) -> None:
    """Only differences are set; attributes are printed, values are not."""
    estate.runner("docker-builder")
    estate.ask("POST", f"{estate.project}/runners", runner_id=1)
    estate.ask("PUT", estate.project, shared_runners_enabled=False)
    estate.ask("POST", f"{estate.project}/variables", key="PLAIN", value="by hand", description="Anna's")
    estate.ask("POST", f"{estate.project}/variables", key="MASKED", value="masked-value", masked=False)
    estate.ask("POST", f"{estate.project}/variables", key="THEIRS", value="theirs")
    report = estate.run("project", FULL)
    assert report.summaries[:4] == [
        "set container_registry_access_level of project root/hello",
        "lock runner docker-builder (#1) to its projects",
        "set value of variable PLAIN of project root/hello",
        "set masked, protected, description of variable MASKED of project root/hello",
    ]
    assert "-masked: False\n+masked: True" in report.diffs
    assert "-value: (another)" in report.diffs
    assert "by hand" not in report.diffs
    assert "+plain" not in report.diffs
    assert estate.variables["PLAIN *"]["description"] == "Anna's"
    assert estate.variables["THEIRS *"]["value"] == "theirs"


def test_drift_by_hand(estate: Estate) -> None:
    """When the task is named, it finds a changed value or setting, a deleted variable and an unlocked runner."""
    estate.runner("docker-builder")
    estate.run("project", FULL)
    estate.ask("PUT", f"{estate.project}/variables/PLAIN", value="drifted")
    estate.ask("DELETE", f"{estate.project}/variables/HIDDEN")
    estate.ask("PUT", estate.project, container_registry_access_level="disabled")
    estate.ask("PUT", "/runners/1", locked=False)
    report = estate.run("project", FULL, named="project")
    assert report.summaries == [
        "set container_registry_access_level of project root/hello",
        "lock runner docker-builder (#1) to its projects",
        "set value of variable PLAIN of project root/hello",
        "create variable HIDDEN of project root/hello",
    ]
    assert estate.run("project", FULL, named="project").summaries == []


class TestHidden:
    """Variables whose value GitLab does not return."""

    ONE = variables('H = { value = "hidden-value", hidden = true }')
    TWO = variables('H = { value = "hidden-other", hidden = true }')

    def test_another_value(self, estate: Estate) -> None:
        """A changed value is found by its fingerprint and set in place."""
        estate.run("project", self.ONE)
        report = estate.run("project", self.TWO)
        assert report.summaries == ["set value of variable H of project root/hello"]
        assert "DELETE /projects/root%2Fhello/variables/H" not in estate.asked
        assert estate.kept["H *"]["value"] == "hidden-other"
        assert estate.run("project", self.TWO, named="project").summaries == []

    def test_the_fingerprint_is_keyed(self, estate: Estate) -> None:
        """Two estates record different fingerprints for one secret: the key is random."""
        estate.run("project", self.ONE)
        assert len(estate.state["shared"]["fingerprint key"]) == 64
        first = estate.records("project")
        estate.forget()
        estate.run("project", self.ONE)
        record = "gitlab variable/root/hello H *"
        assert first[record] != estate.records("project")[record]

    def test_a_lost_record(self, estate: Estate) -> None:
        """A value that cannot be compared is set again."""
        estate.run("project", self.ONE)
        estate.forget()
        assert estate.run("project", self.ONE).summaries == ["set value of variable H of project root/hello"]

    @pytest.mark.parametrize(("before", "after", "how"), [(False, True, "hidden"), (True, False, "not hidden")])
    def test_hidden_it_can_only_be_from_the_start(self, estate: Estate, before: bool, after: bool, how: str) -> None:
        """It is deleted and created, and the summary names both."""
        text = 'H = {{ value = "hidden-value", masked = true, hidden = {} }}'
        estate.run("project", variables(text.format(str(before).lower())))
        planned = estate.run("project", variables(text.format(str(after).lower())), check=True)
        expected = f"delete and create variable H of project root/hello, so that it is {how}"
        assert planned.summaries == [expected]
        assert estate.kept["H *"]["hidden"] is before
        assert estate.run("project", variables(text.format(str(after).lower()))).summaries == [expected]
        assert estate.kept["H *"]["hidden"] is after

    def test_a_gitlab_that_hides_nothing(self, estate: Estate) -> None:
        """GitLab before 17.4 ignores hidden: the variable is masked, and a message says that it is not hidden."""
        made = {"key": "H", "value": "hidden-value", "masked": True, "environment_scope": "*"}
        estate.faults({"method": "POST", "path": "/api/v4/projects/*/variables", "status": 201, "body": made})
        report = estate.run("project", self.ONE)
        assert estate.bodies[estate.asked.index("POST /projects/root%2Fhello/variables")]["masked"] is True
        assert report.error.text == "variable H is masked but not hidden: this GitLab does not hide variables"
        assert "17.4" in report.error.hint
        assert estate.state == {}

    def test_gitlab_fails_between_delete_and_create(self, estate: Estate) -> None:
        """The failure is reported, and the next run creates it."""
        plain = variables('H = { value = "hidden-value", masked = true }')
        estate.run("project", plain)
        estate.faults({"method": "POST", "path": "/api/v4/projects/*/variables", "status": 500, "times": 1})
        report = estate.run("project", self.ONE)
        assert report.code == 1
        assert "variable H of project root/hello was deleted and could not be created again" in report.error.text
        assert report.error.hint == "rerun the command: it creates it"
        assert estate.run("project", self.ONE).summaries == ["create variable H of project root/hello"]


class TestDropped:
    """Variables that were removed from the inventory."""

    def test_ours_are_removed_others_never(self, estate: Estate) -> None:
        """They are deleted by name and scope."""
        estate.ask("POST", f"{estate.project}/variables", key="THEIRS", value="theirs")
        estate.ask("POST", f"{estate.project}/variables", key="A", value="theirs", environment_scope="staging")
        estate.run(
            "project", variables('A = [{ value = "1" }, { value = "2", environment_scope = "production" }]\nB = "3"')
        )
        report = estate.run("project", variables('A = "1"'))
        assert report.summaries == [
            "delete variable A for production of project root/hello: it is no longer in the inventory",
            "delete variable B of project root/hello: it is no longer in the inventory",
        ]
        assert sorted(estate.variables) == ["A *", "A staging", "THEIRS *"]
        assert sorted(one for one in estate.records("project") if "variable/" in one) == [
            "gitlab variable/root/hello A *"
        ]

    def test_gone_already(self, estate: Estate) -> None:
        """A variable that was deleted in GitLab is removed from the record without a change."""
        estate.run("project", variables('A = "1"\nB = "2"'))
        estate.ask("DELETE", f"{estate.project}/variables/B")
        assert estate.run("project", variables('A = "1"')).summaries == []
        assert "gitlab variable/root/hello B *" not in estate.records("project")


class TestRunners:
    """The runners of the project."""

    TEXT = f'[projects."{PROJECT}"]\nrunners = ["docker-builder"]\n'

    def test_every_one_of_that_name(self, estate: Estate) -> None:
        """All runners with this description are assigned."""
        for _ in range(2):
            estate.runner("docker-builder")
        report = estate.run("project", self.TEXT)
        assert report.summaries == [
            f"assign runner docker-builder (#{n}) to project root/hello and lock it" for n in (1, 2)
        ]

    def test_locked_to_another_project(self, estate: Estate) -> None:
        """It is unlocked while it is assigned."""
        estate.runner("docker-builder", locked=True)
        estate.run("project", self.TEXT)
        runner = estate.ask("GET", "/runners/1")
        assert (runner["locked"], len(runner["projects"])) == (True, 2)
        assert [
            one for one in estate.asked if not one.startswith("GET")
        ] == [  # as an owner who is no administrator must
            "PUT /runners/1",
            "POST /projects/root%2Fhello/runners",
            "PUT /runners/1",
        ]

    def test_of_two_projects(self, estate: Estate) -> None:
        """Both projects get it, whichever locked it first."""
        estate.runner("docker-builder", project_id=1, locked=False)
        estate.ask("DELETE", "/runners/1")
        estate.runner("docker-builder", locked=False)
        third = estate.ask("POST", "/user/runners", runner_type="project_type", project_id=1, description="x")["id"]
        text = self.TEXT + f'[projects."root/other"]\nrunners = ["docker-builder", {third}]\n'
        assert estate.run("project", text).code == 0
        assert estate.run("project", text, named="project").summaries == []
        assert len(estate.ask("GET", "/runners/2")["projects"]) == 2

    def test_by_number(self, estate: Estate) -> None:
        """A runner can be given by its id."""
        estate.runner("somebody's")
        report = estate.run("project", f'[projects."{PROJECT}"]\nrunners = [1]\n')
        assert report.summaries == ["assign runner somebody's (#1) to project root/hello and lock it"]

    def test_unknown(self, estate: Estate) -> None:
        """The message names the nearest runner; nothing is changed."""
        estate.runner("docker-builder")
        report = estate.run("project", f'[projects."{PROJECT}"]\nshared_runners = false\nrunners = ["docker-bilder"]\n')
        assert (report.code, report.summaries) == (1, [])
        assert report.error.text == (
            "project root/hello: no runner in GitLab is called 'docker-bilder'; did you mean \"docker-builder\"?"
        )
        assert "[[runners]]" in report.error.hint
        assert estate.ask("GET", estate.project)["shared_runners_enabled"] is True

    def test_not_registered_yet(self, estate: Estate) -> None:
        """Check mode predicts it; a run refuses with the task that creates it."""
        text = RUNNER.replace("runners_extra\n", "") + self.TEXT
        report = estate.run("project", text, check=True)
        assert report.summaries == ["assign runner docker-builder to project root/hello and lock it"]
        report = estate.run("project", text)
        assert report.code == 1
        assert "it requires register" in report.error.text
        assert "provision register" in report.error.hint
        assert estate.state == {}

    def test_an_instances_runner(self, estate: Estate) -> None:
        """It cannot be assigned, and the hint has a solution."""
        estate.runner("docker-builder", runner_type="instance_type")
        report = estate.run("project", self.TEXT)
        assert "runner docker-builder is of instance_type" in report.error.text
        assert 'project = "group/name"' in report.error.hint

    def test_a_token_that_sees_only_its_own(self, estate: Estate) -> None:
        """Without administrator rights the user's own runners are listed."""
        estate.runner("docker-builder")
        estate.faults({"path": "/api/v4/runners/all", "status": 403})
        assert estate.run("project", self.TEXT).code == 0
        assert "GET /runners" in estate.asked

    def test_locked_against_the_inventory(self, estate: Estate) -> None:
        """locked = false in [[runners]] is refused, as a project locks its runners."""
        text = RUNNER.replace("runners_extra", "locked = false") + self.TEXT
        with pytest.raises(
            UsageError, match=r"docker-builder becomes locked to its projects, and .* has locked = false"
        ):
            estate.resources("project", text)


@pytest.mark.parametrize(
    ("status", "words", "hint"),
    [
        (401, "401", "gitlab.api_token is not valid"),
        (403, "403", "projects need the role Maintainer"),
        (500, "500", "gitlab-ctl tail"),
        (503, "503", "gitlab-ctl tail"),
    ],
)
def test_broken(estate: Estate, status: int, words: str, hint: str) -> None:
    """When GitLab refuses there is one message and no record; the next run sets it."""
    times = (
        3 if status == 503 else 1
    )  # it may be starting: a question that was not answered so is asked again when it is needed
    estate.faults({"path": "/api/v4/projects/*", "status": status, "times": times})
    report = estate.run("project", variables('A = "1"'))
    assert (report.code, report.summaries, estate.state) == (1, [], {})
    assert words in report.error.text
    assert report.error.text.startswith("project root/hello: ")
    assert hint in report.error.hint
    assert estate.run("project", variables('A = "1"')).code == 0


@pytest.mark.parametrize("fault", [{"path": "*", "times": 5}, {"path": "*/variables", "method": "POST", "times": 1}])
def test_gitlab_starts(estate: Estate, fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """502 while it is compared, or while a variable is created: it is repeated, and the variable is created once."""
    monkeypatch.setattr(waiting, "_INTERVAL_SECONDS", 0.01)
    estate.ready_timeout = 60
    estate.faults({**fault, "status": 502, "body": "<html>GitLab is not responding (502)</html>"})
    report = estate.run("project", variables('A = "1"'))
    assert (report.code, report.summaries) == (0, ["create variable A of project root/hello"])
    assert list(estate.variables) == ["A *"]
    assert report.messages[0].startswith("waiting for at most 60 s: ")
    assert "refused /projects/" in report.messages[0]
    assert report.messages[0].endswith("502 Bad Gateway")


def test_gitlab_is_not_reached(estate: Estate) -> None:
    """Check mode predicts the changes; a run reports the reason."""
    options = {"url": "http://127.0.0.1:9"}
    assert estate.run("project", variables('A = "1"'), check=True, **options).code == 0  # type: ignore[arg-type]
    report = estate.run("project", variables('A = "1"'), **options)  # type: ignore[arg-type]
    assert report.code == 1
    assert "cannot be reached from this machine" in report.error.text


def test_refused_in_the_middle(estate: Estate) -> None:
    """Applied changes are recorded; the next run applies the rest."""
    text = variables('A = "1"\nB = "2"\nC = "3"')
    estate.before = lambda method, _: (
        estate.faults({"method": "POST", "path": "/api/v4/projects/*/variables", "status": 500, "times": 1})
        if method == "POST" and "B" in [one.get("key") for one in estate.bodies]
        else None
    )
    report = estate.run("project", text)
    assert (report.code, report.summaries) == (1, ["create variable A of project root/hello"])
    estate.before = lambda *_: None
    estate.faults()
    again = estate.run("project", text)
    assert again.summaries == [f"create variable {one} of project root/hello" for one in "BC"]


def test_killed_before_it_was_remembered(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    """When GitLab has a variable without a record, the next run adopts it and sets values that it cannot compare."""
    text = variables('A = "1"\nH = { value = "hidden-value", hidden = true }')
    done = LocalSession.run
    with monkeypatch.context() as patch:
        patch.setattr(LocalSession, "run", _lost)
        assert estate.run("project", variables('A = "1"')).code == 0  # unreachable, not failed
    assert (list(estate.variables), estate.state) == (["A *"], {})
    assert LocalSession.run is done
    assert estate.run("project", text).summaries == ["create variable H of project root/hello"]
    assert len(estate.run("project", variables("")).summaries) == 2  # both are ours


def test_nothing_wanted(estate: Estate) -> None:
    """Recorded variables are deleted. Without records GitLab is not asked, even when the task is named."""
    nothing = f'[projects."{PROJECT}"]\n'
    assert (estate.run("project", nothing, named="project").code, estate.asked) == (0, [])
    estate.run("project", variables('A = "1"'))
    assert estate.run("project", nothing).summaries == [
        "delete variable A of project root/hello: it is no longer in the inventory"
    ]
    assert (estate.run("project", nothing, named="project").summaries, estate.asked) == ([], [])


def _lost(*_: Any, **__: Any) -> Any:
    raise ConnectionLost("the connection broke")


def test_no_such_project(estate: Estate) -> None:
    """No project is created, and the other project stays unchanged."""
    text = '[projects."root/hello".variables]\nA = "1"\n[projects."root/helo".variables]\nA = "1"\n'
    report = estate.run("project", text)
    assert (report.code, report.summaries) == (1, [])
    assert report.error.text == "project root/helo does not exist, or gitlab.api_token may not see it"
    assert "create = true" in report.error.hint
    assert estate.variables == {}


def test_somebody_was_quicker(estate: Estate) -> None:
    """A variable that was created after the observation is observed again and set."""
    done: list[int] = []

    def meddle(method: str, _: str) -> None:
        if method == "POST" and not done:
            done.append(1)
            estate.ask("POST", f"{estate.project}/variables", key="A", value="theirs")

    estate.before = meddle
    report = estate.run("project", variables('A = "1"'))
    assert report.code == 0
    assert report.summaries == ["set value of variable A of project root/hello"]
    assert any("observing again" in one for one in report.messages)
    assert estate.variables["A *"]["value"] == "1"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("short", "at least 8 characters"),
        ("with a blank in it", "only letters, digits"),
        ("a#signs!inside", "only letters, digits"),
        ("two\nlines-of-text", "several lines"),
    ],
)
def test_unmaskable(estate: Estate, tmp_path: Any, value: str, words: str) -> None:
    """A fetched secret, too: it is reported with its place before a host is contacted, without the value."""
    (tmp_path / "secret").write_text(value)
    for kind in ("masked", "hidden"):
        with pytest.raises(UsageError) as caught:
            estate.resources("project", variables(f'A = {{ value = {{ file = "secret" }}, {kind} = true }}'))
        assert f'projects."{PROJECT}".variables.A: it cannot be masked' in caught.value.text
        assert words in caught.value.text
        assert value not in str(caught.value)
    assert estate.asked == []


def test_without_a_token(estate: Estate) -> None:
    """Bad input."""
    file = estate.folder / "bare.toml"
    file.write_text(BASE + variables('A = "1"'))
    with pytest.raises(UsageError, match=re.escape('projects."root/hello": this needs GitLab\'s API')):
        project.resources(load_inventory([file]).hosts[0])


def test_only_one_host_is_concerned(estate: Estate) -> None:
    """The first host of gitlab, else of runners, else of all; none without projects."""
    host = estate.host(variables('A = "1"'))
    one, other = Member("x", "x"), Member("y", "y")
    assert project.concerns(host)
    assert not project.concerns(replace(host, name="runner-1"))
    runners = Hosts({"runners": (other,), "all": (one, other)})
    assert project.concerns(replace(host, name="y", estate=runners))
    assert not project.concerns(replace(host, name="x", estate=runners))
    assert project.concerns(replace(host, name="x", estate=Hosts({"all": (one, other)})))
    assert not project.concerns(estate.host(""))

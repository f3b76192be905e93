"""`HostState`: the records of a host by task, and what becomes of a file of version 1."""

from __future__ import annotations

import json

import pytest

from provision.gitlab.api import Api
from provision.host.docker import RegistryAccess
from provision.host.state import HostState
from provision.image_name import parse
from provision.resources import (
    Deployment,
    Firewall,
    ImageCheck,
    JsonSettings,
    Packages,
    PipelineFile,
    ProjectSettings,
    Resource,
    RubySettings,
    RunnerEntries,
    RunnerSettings,
    S3Bucket,
    WantedProject,
)
from provision.secret import Secret
from provision.url import Url
from tests.support.data import DATA

RECORDED = (DATA / "state.json.0.1.0").read_text()
GITLAB, REGISTRY = Url.parse("https://gitlab.example.com"), Url.parse("https://gitlab.example.com:5555")


class TestVersion1:
    """A file of version 0.1.0, with records of every kind, among them those of tasks of the user's own."""

    STATE = HostState.parse(RECORDED)

    def test_nothing_is_lost(self) -> None:
        """Every record is there once, with its value."""
        before = json.loads(RECORDED)
        key = before.pop("fingerprint key")
        owners = [value for records in self.STATE.tree["owners"].values() for value in records.values()]
        after = [*owners, *self.STATE.tree["unowned"].values()]
        assert sorted(map(json.dumps, after)) == sorted(map(json.dumps, before.values()))
        assert self.STATE.tree["shared"] == {"fingerprint key": key}
        assert self.STATE.fingerprint_key == key

    @pytest.mark.parametrize(
        ("owner", "resource"),
        [
            ("docker", JsonSettings("/etc/docker/daemon.json", {})),
            ("gitlab", RubySettings({})),
            ("registry", RubySettings({})),
            ("smtp", RubySettings({})),
            ("registry", S3Bucket("registry", "nyc3", None, "", "")),
            ("firewall", Firewall(())),
            ("docker", Packages(("docker-ce",))),
            ("docker", Packages(("docker.io",))),
            ("gitlab", Packages(("gitlab-ce",))),
            ("gitlab", Packages(("gitlab-ee",))),
            ("runner", Packages(("gitlab-runner",))),
            ("register", RunnerEntries(())),
            ("register", RunnerSettings("builder", Api(GITLAB, Secret("")), {})),
            ("project", ProjectSettings(WantedProject("root/hello"), Api(GITLAB, Secret("")))),
            ("pipeline", PipelineFile("root/hello", Api(GITLAB, Secret("")), "", "")),
            ("deploy", Deployment("hello", parse("x"), RegistryAccess(str(REGISTRY), "", Secret("")))),
            ("verify", ImageCheck(REGISTRY, "", Secret(""), "", "")),
            ("my_exporter", JsonSettings("/etc/my-exporter.json", {})),
            ("my_exporter", Packages(("node-exporter",))),
        ],
    )
    def test_each_task_finds_its_records(self, owner: str, resource: Resource) -> None:
        """Under the keys that its resources use now; a task of the user's own finds what nobody else claims."""
        assert self.STATE.record(owner, resource.record_key) is not None

    def test_records_of_a_projects_variables_belong_to_its_task(self) -> None:
        """By the keys of version 1."""
        names = [key for key in self.STATE.records("project") if key.startswith("gitlab variable/")]
        assert names == ["gitlab variable/root/hello TOKEN *", "gitlab variable/root/hello URL staging"]

    def test_a_record_of_unknown_origin_is_taken_over(self) -> None:
        """By the first task that records something under its key."""
        after = self.STATE.updated("my_exporter", {"/etc/my-exporter.json": ["port", "log"]})
        assert after.records("my_exporter") == {"/etc/my-exporter.json": ["port", "log"]}
        assert set(after.tree["unowned"]) == {"held node-exporter"}
        assert after.record("another", "/etc/my-exporter.json") is None

    def test_it_is_read_back_as_version_2(self) -> None:
        """With everything in it."""
        assert HostState.parse(self.STATE.text()) == self.STATE
        assert json.loads(self.STATE.text())["version"] == 2


class TestVersion2:
    """What the program writes."""

    @pytest.mark.parametrize(
        "text",
        ["{", "[]", '"x"', '{"version": 3}', '{"version": 2, "owners": []}', '{"version": 2, "owners": {"a": 1}}'],
    )
    def test_a_broken_file_is_refused(self, text: str) -> None:
        """So is one of a newer program: ValueError."""
        with pytest.raises(ValueError, match=r"object|JSON|Expecting|version"):
            HostState.parse(text)

    def test_records_of_other_tasks(self) -> None:
        """Under the same key."""
        state = HostState({"owners": {"a": {"ufw": [1]}, "b": {"ufw": [2], "x": 3}, "c": {}}})
        assert (state.record("a", "ufw"), state.others("a", "ufw"), state.others("a", "x")) == (
            [1],
            {"b": [2]},
            {"b": 3},
        )

    def test_a_new_fingerprint_key_is_written_with_the_next_record(self) -> None:
        """It is random, stays the same in a run, and is not written by itself."""
        state, other = HostState(), HostState()
        assert state.fingerprint_key == state.fingerprint_key != other.fingerprint_key
        after = state.updated("project", {"x": 1})
        assert HostState.parse(after.text()).fingerprint_key == state.fingerprint_key

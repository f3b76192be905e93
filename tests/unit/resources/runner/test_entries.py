"""`RunnerEntries`: runners are identified by token and server, not by name."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from provision.editing.toml.model import fingerprint
from provision.errors import ApiFailed, ChangeFailed, ProbeFailed, Refused
from provision.gitlab.api import Api
from provision.gitlab.runners import RunnerCreator
from provision.resources import Result, RunnerEntries, RunnerEntry
from provision.resources.base import ApiAction, Change, Outcome
from provision.resources.runner.entries import RESTART
from provision.secret import Secret
from provision.shell import Command
from provision.testing import NO_FILE, file_is, notes, observe, planned
from provision.url import Url

URL = "https://gitlab.example.com"
OTHERS = """# kept by hand
concurrent = 4

[[runners]] # somebody else's
  name = "theirs"
  url = "https://gitlab.example.com"
  token = "glrt-theirs"
  executor = "shell"
"""
DOWN = f"000 7 {URL} "
Serve = Callable[..., Any]


def entry(name: str = "builder", token: str | None = "glrt-mine", **settings: Any) -> RunnerEntry:
    """A runner of the inventory."""
    return RunnerEntry(name, URL, {"executor": "docker", **settings}, Secret(token) if token else None)


def creator(url: str = URL) -> RunnerCreator:
    """How runners are created there."""
    return RunnerCreator(Api(Url.parse(url), Secret("glpat-x")), {"description": "builder"})


def section(
    name: str = "builder", token: str = "glrt-mine", executor: str = "docker", number: int | None = None
) -> str:
    """An entry as we write it."""
    known = f"  id = {number}\n" if number else ""
    return f'\n[[runners]]\n  name = "{name}"\n  url = "{URL}"\n{known}  token = "{token}"\n  executor = "{executor}"\n'


def recorded(**tokens: str) -> dict[str, Any]:
    """The record of runners that we wrote, by name and token; `name_7` has number 7 and was created by us."""
    runners = {}
    for name, token in tokens.items():
        plain, _, number = name.partition("_")
        runners[plain] = {
            "url": URL,
            "fingerprint": fingerprint(token),
            "id": int(number) if number else None,
            "made": bool(number),
            "keys": ["executor"],
        }
    return {"top": [], "runners": runners}


class Case:
    """The wanted runners, and what is observed."""

    def __init__(
        self,
        *runners: RunnerEntry,
        text: str | None = OTHERS,
        tokens: str = "",
        ours: Mapping[str, Any] | None = None,
        **top: Any,
    ) -> None:
        self.resource = RunnerEntries(runners, top)
        found = NO_FILE if text is None else file_is(text, "0600")
        lines = "".join(f"{line}\n" for line in tokens.split(";") if line)
        self.seen = observe(self.resource, {"file": found, "tokens": lines}, record=ours)
        self.text = text or ""

    @property
    def changes(self) -> list[Change]:
        """The changes."""
        return planned(self.resource, self.seen)

    @property
    def notes(self) -> list[str]:
        """The notes."""
        return notes(self.resource, self.seen)

    def written(self, change: Change) -> str:
        """The file that a change writes."""
        command = outcome_of(change).run if isinstance(change.run, ApiAction) else change.run
        return command.stdin.decode()


def outcome_of(change: Change) -> Outcome:
    """What an API action leaves to do."""
    assert isinstance(change.run, ApiAction)
    outcome = change.run.make()
    assert outcome is not None
    return outcome


def ok(token: str, status: int = 200) -> str:
    """GitLab's answer to a token."""
    return f"{status} 0 {URL} {token}"


def unverified(changes: list[Change]) -> None:
    """Nothing is changed, and a verification fails: whether the token is valid is unknown."""
    (one,) = changes
    assert one.verification
    assert isinstance(one.run, ApiAction)
    with pytest.raises(ApiFailed, match="verify with GitLab the tokens of builder: it gave no answer"):
        one.run.make()


class TestGivenToken:
    """The inventory holds the token."""

    @pytest.mark.parametrize("text", [None, "", OTHERS])
    def test_bare(self, text: str | None) -> None:
        """An entry is appended; the rest of the file stays byte by byte."""
        case = Case(entry(), text=text, tokens=ok("glrt-mine"))
        (change,) = case.changes
        assert isinstance(change.run, Command)
        written = case.written(change)
        assert written.startswith(case.text)
        data = tomllib.loads(written)["runners"][-1]
        assert data == {"name": "builder", "url": URL, "token": "glrt-mine", "executor": "docker"}
        assert change.action == ("create" if text is None else "update")
        assert "glrt-mine" not in change.diff
        record = change.record["runners"]["builder"]
        assert (record["fingerprint"], record["keys"]) == (fingerprint("glrt-mine"), ["executor"])
        assert "glrt-mine" not in str(change.record)

    def test_converged(self) -> None:
        """No changes, no notes."""
        case = Case(entry(), text=OTHERS + section(), tokens=ok("glrt-mine"), ours=recorded(builder="glrt-mine"))
        assert (case.changes, case.notes) == ([], [])

    def test_partly_applied(self) -> None:
        """A setting differs: only it is set."""
        text = OTHERS + section(executor="shell")
        case = Case(entry(), text=text, tokens=ok("glrt-mine"), ours=recorded(builder="glrt-mine"))
        (change,) = case.changes
        assert case.written(change) == OTHERS + section()
        assert change.summary == "builder: set executor"

    def test_another_name_is_the_same_runner(self) -> None:
        """Renamed in the inventory: nothing is registered, the entry gets the new name."""
        text = OTHERS + section()
        case = Case(entry("renamed"), text=text, tokens=ok("glrt-mine"), ours=recorded(builder="glrt-mine"))
        changes = case.changes
        assert case.written(changes[-1]) == OTHERS + section("renamed")
        assert not any(isinstance(one.run, ApiAction) for one in changes)
        assert list(changes[-1].record["runners"]) == ["renamed"]

    def test_a_renamed_runner_is_not_unregistered(self) -> None:
        """Its token is still wanted, under another name."""
        text = OTHERS + section()
        case = Case(entry("renamed"), text=text, tokens=ok("glrt-mine"), ours=recorded(builder="glrt-mine"))
        assert [one.summary for one in case.changes] == ["renamed: set name"]

    def test_a_new_token_changes_one_line(self) -> None:
        """Rotated: the entry gets it, its neighbours are byte-identical."""
        text = OTHERS + section() + section("other", "glrt-other")
        case = Case(
            entry(token="glrt-fresh"),
            entry("other", "glrt-other"),
            text=text,
            tokens=f"{ok('glrt-fresh')};{ok('glrt-mine', 403)};{ok('glrt-other')}",
            ours=recorded(builder="glrt-mine", other="glrt-other"),
        )
        (change,) = case.changes
        assert case.written(change) == text.replace("glrt-mine", "glrt-fresh")
        assert "glrt-fresh" not in change.diff
        assert change.record["runners"]["builder"]["fingerprint"] == fingerprint("glrt-fresh")

    @pytest.mark.parametrize("status", [403, 422])
    def test_a_refused_token(self, status: int) -> None:
        """Whether it is in the file or not; nothing is changed."""
        for text in (OTHERS, OTHERS + section()):
            with pytest.raises(Refused, match=f"GitLab at {URL} refuses the token of runner builder") as caught:
                _ = Case(entry(), text=text, tokens=ok("glrt-mine", status)).changes
            assert "deleted or reset there" in caught.value.hint
            assert "glrt-mine" not in str(caught.value)

    @pytest.mark.parametrize(
        ("answer", "why"), [(DOWN, "the connection is refused"), (f"503 0 {URL} ", "it answers 503")]
    )
    def test_gitlab_is_down_and_the_entry_is_there(self, answer: str, why: str) -> None:
        """Unknown is not invalid: the entry stays, with a note."""
        case = Case(entry(), text=OTHERS + section(), tokens=answer + "glrt-mine", ours=recorded(builder="glrt-mine"))
        unverified(case.changes)
        assert case.notes == [
            f"whether GitLab at {URL} knows runner builder is unknown ({why}): its entry stays unchanged"
        ]

    def test_gitlab_is_down_and_the_entry_is_not_there(self) -> None:
        """It requires `gitlab`: a token that was not verified is not written."""
        (change,) = Case(entry(), tokens=DOWN + "glrt-mine").changes
        assert change.requires == "gitlab"
        assert change.summary.endswith("(the connection is refused)")

    def test_an_untrusted_certificate_has_its_own_remedy(self) -> None:
        """GitLab answers: running `provision gitlab` would not help."""
        (change,) = Case(entry(), tokens=f"0 60 {URL} glrt-mine").changes
        assert change.summary.endswith("(its certificate is not trusted on the host)")
        assert change.remedy.startswith("name its CA in registry.certificate.ca")

    def test_a_setting_is_reconciled_though_gitlab_is_down(self) -> None:
        """That needs no answer from GitLab."""
        text = OTHERS + section(executor="shell")
        case = Case(entry(), text=text, tokens=DOWN + "glrt-mine", ours=recorded(builder="glrt-mine"))
        change, *rest = case.changes
        assert change.requires == ""
        assert case.written(change) == OTHERS + section()
        unverified(rest)

    def test_two_runners_with_one_token_are_refused(self) -> None:
        """One token is one runner."""
        with pytest.raises(Refused, match="share one token"):
            _ = Case(entry(), entry("twin"), tokens=ok("glrt-mine")).changes

    def test_the_url_with_a_slash_at_its_end_is_the_same_server(self) -> None:
        """As it is often written by hand."""
        text = OTHERS + section().replace(f'"{URL}"', f'"{URL}/"')
        case = Case(entry(), text=text, tokens=ok("glrt-mine"), ours=recorded(builder="glrt-mine"))
        assert case.changes == []


class TestCreated:
    """GitLab creates the runner."""

    @staticmethod
    def created(**settings: Any) -> RunnerEntry:
        """Without a token, but with a way to create it."""
        return RunnerEntry("builder", URL, {"executor": "docker", **settings}, None, creator())

    def test_bare_in_check_mode(self) -> None:
        """Predicted exactly, with a placeholder that is masked in the diff; nothing is created."""
        (change,) = Case(self.created(), tokens=f"200 0 {URL} -").changes
        assert change.summary.startswith(f"create builder in GitLab at {URL}; add runner builder")
        assert isinstance(change.run, ApiAction)
        assert "not-created-yet" not in change.diff
        assert change.action == "create"

    def test_bare(self, serve: Serve, reply: Any) -> None:
        """Created by a real POST; its token is written to the file, its fingerprint is recorded."""
        web = serve(lambda _: reply(201, {"id": 7, "token": "glrt-born", "token_expires_at": None}))
        runner = RunnerEntry("builder", web.url, {"executor": "docker"}, None, creator(web.url))
        case = Case(runner, tokens=f"401 0 {web.url} -")
        (change,) = case.changes
        assert isinstance(change.run, ApiAction)
        outcome = outcome_of(change)
        (asked,) = web.asked
        assert (asked.method, asked.path) == ("POST", "/api/v4/user/runners")
        data = tomllib.loads(outcome.run.stdin.decode())["runners"][-1]
        assert (data["token"], data["name"]) == ("glrt-born", "builder")
        record = outcome.record["runners"]["builder"]
        assert (record["id"], record["fingerprint"], record["made"]) == (7, fingerprint("glrt-born"), True)
        assert "glrt-born" not in outcome.run.script

    def test_created_once(self) -> None:
        """It is recorded, in the file, and known to GitLab."""
        text = OTHERS + section(token="glrt-born", number=7)
        case = Case(self.created(), text=text, tokens=ok("glrt-born"), ours=recorded(builder_7="glrt-born"))
        assert (case.changes, case.notes) == ([], [])

    def test_deleted_in_gitlab(self, serve: Serve, reply: Any) -> None:
        """403: it is created again and replaces the old entry; the neighbours stay."""
        web = serve(lambda _: reply(201, {"id": 8, "token": "glrt-second"}))
        text = (OTHERS + section(token="glrt-born", number=7)).replace(URL, web.url)
        builder = {**recorded(builder_7="glrt-born")["runners"]["builder"], "url": web.url}
        ours = {"top": [], "runners": {"builder": builder}}
        runner = RunnerEntry("builder", web.url, {"executor": "docker"}, None, creator(web.url))
        case = Case(runner, text=text, tokens=f"403 0 {web.url} glrt-born", ours=ours)
        assert case.notes == [f"GitLab at {web.url} no longer knows runner builder: it is created again"]
        change = case.changes[-1]
        written = tomllib.loads(case.written(change))["runners"]
        assert [one["token"] for one in written] == ["glrt-theirs", "glrt-second"]

    @pytest.mark.parametrize("answer", [DOWN, f"502 0 {URL} ", f"401 0 {URL} ", f"429 0 {URL} "])
    def test_any_other_answer_is_not_403(self, answer: str) -> None:
        """Not reachable, an error, a rate limit: no runner is created, no entry is changed."""
        text = OTHERS + section(token="glrt-born", number=7)
        case = Case(self.created(), text=text, tokens=answer + "glrt-born", ours=recorded(builder_7="glrt-born"))
        unverified(case.changes)
        assert len(case.notes) == 1

    def test_gitlab_is_down_and_it_was_never_created(self) -> None:
        """It requires `gitlab`."""
        (change,) = Case(self.created(), tokens=DOWN + "-").changes
        assert change.requires == "gitlab"

    def test_adopted_instead_of_created_twice(self) -> None:
        """state.json was lost, or it was registered by hand: the only entry of this name on this server."""
        case = Case(self.created(), text=OTHERS + section(), tokens=ok("glrt-mine"))
        assert not any(isinstance(one.run, ApiAction) for one in case.changes)

    def test_two_entries_of_one_name(self) -> None:
        """Either could be meant: a new runner is created, both entries stay."""
        text = OTHERS + section() + section(token="glrt-too")
        (change,) = Case(self.created(), text=text, tokens=f"{ok('glrt-mine')};{ok('glrt-too')}").changes
        assert isinstance(change.run, ApiAction)

    def test_an_entry_of_that_name_on_another_server_is_another(self) -> None:
        """The server counts as well."""
        text = OTHERS + section().replace(URL, "https://elsewhere.example.com")
        (change,) = Case(self.created(), text=text, tokens=f"401 0 {URL} -").changes
        assert isinstance(change.run, ApiAction)

    def test_no_way_to_create_it(self) -> None:
        """Neither token nor API."""
        with pytest.raises(Refused, match="runner builder has no token, and cannot be created") as caught:
            _ = Case(entry(token=None), tokens=f"401 0 {URL} -").changes
        assert "gitlab.api_token" in caught.value.hint

    def test_gitlab_refuses_to_create_it(self, serve: Serve, reply: Any) -> None:
        """Its own message, and nothing is written."""
        web = serve(lambda _: reply(403, {"message": "403 Forbidden"}))
        runner = RunnerEntry("builder", web.url, {"executor": "docker"}, None, creator(web.url))
        (change,) = Case(runner, tokens=f"401 0 {web.url} -").changes
        assert isinstance(change.run, ApiAction)
        with pytest.raises(ChangeFailed, match="403"):
            change.run.make()


class TestDropped:
    """Runners that we wrote earlier and that the inventory no longer has."""

    def test_it_is_unregistered_and_removed(self) -> None:
        """First in GitLab, with its token on standard input; then its entry is removed. Entries of others stay."""
        text = OTHERS + section("old", "glrt-old") + section()
        case = Case(entry(), text=text, tokens=ok("glrt-mine"), ours=recorded(builder="glrt-mine", old="glrt-old"))
        unregister, remove = case.changes
        assert unregister.summary == f"unregister old ({URL}) from GitLab"
        assert isinstance(unregister.run, Command)
        assert "glrt-old" not in unregister.run.script
        assert unregister.run.stdin == f"/managers {URL} glrt-old\n".encode()
        assert case.written(remove) == OTHERS + section()
        assert list(remove.record["runners"]) == ["builder"]

    def test_the_last_one(self) -> None:
        """No entry and no record of ours is left."""
        case = Case(text=OTHERS + section("old", "glrt-old"), ours=recorded(old_7="glrt-old"))
        unregister, remove = case.changes
        assert isinstance(unregister.run, Command)
        assert unregister.run.stdin == f"- {URL} glrt-old\n".encode()
        assert case.written(remove) == OTHERS
        assert remove.record is None

    def test_entries_of_others_stay(self) -> None:
        """They are not recorded."""
        assert Case(text=OTHERS).changes == []

    def test_one_that_is_gone_already(self) -> None:
        """Somebody removed it by hand."""
        assert (
            Case(
                entry(),
                text=OTHERS + section(),
                tokens=ok("glrt-mine"),
                ours=recorded(builder="glrt-mine", old="glrt-old"),
            ).changes
            == []
        )


class TestTop:
    """Top-level keys."""

    def test_set_and_dropped(self) -> None:
        """Wanted keys are set, dropped ones of ours are removed, others stay."""
        case = Case(text="concurrent = 1\ncheck_interval = 3\nlog_level = 'info'\n", ours={"top": ["check_interval"]}, concurrent=8)  # fmt: skip
        (change,) = case.changes
        assert case.written(change) == "concurrent = 8\nlog_level = 'info'\n"
        assert change.record["top"] == ["concurrent"]
        assert change.notify == ()

    def test_only_the_listen_address_restarts(self) -> None:
        """gitlab-runner reads everything else by itself."""
        (change,) = Case(text="concurrent = 1\n", listen_address="127.0.0.1:9252").changes
        assert change.notify == (RESTART,)


class TestBroken:
    """Files that are not overwritten."""

    def test_no_toml(self) -> None:
        """Line and column are named."""
        with pytest.raises(Refused, match=r"config\.toml is not valid TOML: line 2"):
            _ = Case(entry(), text="concurrent = 1\n[[runners\n", tokens=ok("glrt-mine")).changes

    def test_not_utf8(self) -> None:
        """Bytes of another encoding."""
        resource = RunnerEntries((entry(),))
        seen = observe(resource, {"file": file_is(b"# \xe4\n"), "tokens": ok("glrt-mine")})
        with pytest.raises(ProbeFailed, match="is not UTF-8"):
            planned(resource, seen)

    def test_not_readable(self) -> None:
        """The host's own message."""
        resource = RunnerEntries((entry(),))
        seen = observe(resource, {"file": Result(b"", b"cat: Is a directory", 1), "tokens": ok("glrt-mine")})
        with pytest.raises(ProbeFailed, match="Is a directory"):
            planned(resource, seen)


def test_secrets_in_settings_are_masked_in_the_diff() -> None:
    """Keys of the cache, for example. They are written to the file in plain text."""
    cache = {
        "s3": {"AccessKey": Secret("the-cache-access"), "SecretKey": Secret("the-cache-secret"), "BucketName": "b"}
    }
    case = Case(entry(cache=cache), tokens=ok("glrt-mine"))
    (change,) = case.changes
    assert "the-cache" not in change.diff
    assert "BucketName" in change.diff
    data = tomllib.loads(case.written(change))["runners"][-1]
    assert data["cache"]["s3"]["SecretKey"] == "the-cache-secret"


def test_docker_in_docker_and_the_socket_together_are_noted() -> None:
    """They exclude each other."""
    both = {"volumes": ["/certs/client", "/var/run/docker.sock:/var/run/docker.sock"]}
    assert "remove one of the two volumes" in Case(entry(docker=both), tokens=ok("glrt-mine")).notes[0]

"""A GitLab of the lab on loopback and a host that remembers, with the real engine between: for tasks that ask the API."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from provision.engine.catalogue import load_inventory as load
from provision.engine.events import ChangeEvent, ErrorEvent, Event, Message
from provision.engine.run import HostPlay, Run
from provision.resources import Resource
from provision.tasks import SHIPPED, Host
from provision.testing import LocalSession

PROJECT = "root/hello"
SEED = {"api_token": "the-api-token", "users": {"root": "p", "sammy": "p"}, "projects": [PROJECT, "root/other"]}
BASE = '[hosts.gitlab]\ngroups = ["gitlab"]\n[hosts.runner-1]\ngroups = ["runners"]\n'
Record = dict[str, Any]


@dataclass
class Told:
    """What a run told. Its exit code would be `code`."""

    code: int = 0
    events: list[Event] = field(default_factory=list)

    def on(self, event: Event) -> None:
        """Keeps an event."""
        self.events.append(event)

    def close(self) -> None:
        """Nothing is open."""

    @property
    def changes(self) -> list[str]:
        """In words."""
        return [one.summary for one in self.events if isinstance(one, ChangeEvent)]

    @property
    def diffs(self) -> str:
        """All of them."""
        return "\n".join(one.diff for one in self.events if isinstance(one, ChangeEvent))

    @property
    def messages(self) -> list[str]:
        """Notes."""
        return [one.text for one in self.events if isinstance(one, Message)]

    @property
    def error(self) -> ErrorEvent:
        """The one error."""
        (found,) = [one for one in self.events if isinstance(one, ErrorEvent)]
        return found


class Estate:
    """GitLab at `url`, seen through a recorder; `before` is called with each request on its way, and may meddle."""

    def __init__(self, folder: Path, behind: str, serve: Callable[..., Any], reply: Any) -> None:
        self.folder, self.behind = folder, behind
        self.home = folder / "home"
        self.home.mkdir()
        self.asked: list[str] = []
        self.bodies: list[Record] = []
        self.before: Callable[[str, str], object] = lambda *_: None
        self._reply = reply
        self.web = serve(self._forward)

    def _forward(self, asked: Any) -> Any:
        self.asked.append(f"{asked.method} {urlsplit(asked.path).path.removeprefix('/api/v4')}")
        body = asked.body if asked.body.startswith(b"{") else b"{}"
        self.bodies.append(json.loads(body))
        self.before(asked.method, asked.path)
        names = ("content-type", "private-token")
        headers = {name: asked.headers[name] for name in names if name in asked.headers}
        request = urllib.request.Request(self.behind + asked.path, asked.body or None, headers, method=asked.method)
        status, said, told = _answer(request)
        return self._reply(status, said, {"Content-Type": told.get("Content-Type", "")})

    def ask(self, method: str, path: str, **data: Any) -> Any:
        """What an administrator asks, past the recorder; the answer's JSON."""
        headers = {"PRIVATE-TOKEN": "the-api-token", "Content-Type": "application/json"}
        text = json.dumps(data).encode() if data else None
        request = urllib.request.Request(f"{self.behind}/api/v4{path}", text, headers, method=method)
        status, said, _ = _answer(request)
        assert status < 400, f"{method} {path}: {status} {said!r}"
        return json.loads(said) if said else None

    def faults(self, *faults: Record) -> None:
        """GitLab answers so from now on."""
        path = self.folder / "gitlab/etc/gitlab-standin/api-faults.json"
        path.write_text(json.dumps(faults))

    @property
    def project(self) -> str:
        """Where the project is below /api/v4."""
        return f"/projects/{quote(PROJECT, safe='')}"

    @property
    def variables(self) -> dict[str, Record]:
        """The project's variables by name and scope."""
        found = self.ask("GET", f"{self.project}/variables")
        return {f"{one['key']} {one['environment_scope']}": one for one in found}

    @property
    def kept(self) -> dict[str, Record]:
        """The same as GitLab keeps them: with what is hidden."""
        database = json.loads((self.folder / "gitlab/var/opt/gitlab/standin/db.json").read_text())
        return {f"{one['key']} {one['environment_scope']}": one for one in database["variables"]}

    def runner(self, description: str, **fields: Any) -> int:
        """A runner that is there: its number."""
        wanted = {"runner_type": "project_type", "project_id": 2, "description": description, **fields}
        if wanted["runner_type"] != "project_type":
            del wanted["project_id"]
        return int(self.ask("POST", "/user/runners", **wanted)["id"])

    def commit(self, text: str, path: str = ".gitlab-ci.yml", branch: str = "main") -> None:
        """Somebody commits a file."""
        place = f"{self.project}/repository/files/{quote(path, safe='')}"
        status = _answer(self._get(f"{place}?ref={quote(branch, safe='')}"))[0]
        self.ask("PUT" if status == 200 else "POST", place, branch=branch, commit_message="by hand", content=text)

    def committed(self, branch: str = "main", path: str = ".gitlab-ci.yml") -> str:
        """What a branch has; "" for nothing."""
        place = f"{self.project}/repository/files/{quote(path, safe='')}/?ref={quote(branch, safe='')}"
        status, said, _ = _answer(self._get(place))
        import base64

        return base64.b64decode(json.loads(said)["content"]).decode() if status == 200 else ""

    def _get(self, path: str) -> urllib.request.Request:
        return urllib.request.Request(f"{self.behind}/api/v4{path}", headers={"PRIVATE-TOKEN": "the-api-token"})

    @property
    def state(self) -> Record:
        """state.json."""
        path = self.home / "state.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def records(self, task: str) -> Record:
        """What a task recorded on the host."""
        return dict(self.state.get("owners", {}).get(task, {}))

    def forget(self) -> None:
        """state.json is lost."""
        (self.home / "state.json").unlink(missing_ok=True)

    def host(self, text: str, *, token: str = "the-api-token", url: str = "") -> Host:
        """The host that remembers, of an inventory with `text` in it."""
        file = self.folder / "inventory.toml"
        gitlab = f'[gitlab]\nexternal_url = "{url or self.web.url}"\napi_token = "{token}"\n'
        file.write_text(f"{gitlab}{BASE}{text}")
        file.chmod(0o600)
        return load((file,)).hosts[0]

    def resources(self, name: str, text: str, **options: str) -> tuple[Resource, ...]:
        """What a task wants."""
        (task,) = [one for one in SHIPPED if one.name == name]
        return task.resources(self.host(text, **options))

    def run(self, name: str, text: str, *, check: bool = False, named: str = "all", **options: str) -> Told:
        """A run in which the user named `named`; the requests it makes are in `asked`, and their bodies in `bodies`."""
        self.asked.clear()
        self.bodies.clear()
        (task,) = [one for one in SHIPPED if one.name == name]
        host, told = self.host(text, **options), Told()
        session = LocalSession({"/var/lib/provision": self.home})
        run = Run((named,), [host], [HostPlay({host.name: (task,)})], lambda _: session, [told], check=check)
        told.code = 1 if run.execute().failed else 0
        return told


def _answer(request: urllib.request.Request) -> tuple[int, bytes, Any]:
    try:
        answer = urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.read(), answer.headers

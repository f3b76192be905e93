"""A GitLab of the lab on loopback and a host with a state file, with the real engine between them: for tasks with API queries."""

from __future__ import annotations

import base64
import json
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from provision.engine.catalogue import load_inventory as load
from provision.engine.run import HostPlay, Run
from provision.resources import Resource
from provision.tasks import SHIPPED, Host
from provision.testing import LocalSession
from provision_lab.standins.gitlab_ce.host.layout import Paths
from tests.support.ci import FakeCi
from tests.support.report import RunReport
from tests.support.web import answer_of, forwarded

Record = dict[str, Any]
PROJECT = "root/hello"
SEED: Record = {
    "api_token": "the-api-token",
    "users": {"root": "p", "sammy": "p", "dev": "p"},
    "projects": [PROJECT, "root/other"],
    "members": [{"user": "dev", "path": PROJECT, "role": "developer"}],
    "tokens": [{"token": "dev", "user": "dev", "scopes": ["api"]}],
}
BASE = '[hosts.gitlab]\ngroups = ["gitlab"]\n[hosts.runner-1]\ngroups = ["runners"]\n'
_HERE = Path(__file__).parents[2]
_PACKAGES = (_HERE, _HERE / "lab")


class Estate:
    """GitLab behind a recorder at `url`. `before` is called with each request, before it is forwarded.

    ready_timeout  for how long a run waits for a GitLab that answers 502 or 503
    ci             answers what is asked about pipelines, in place of GitLab
    """

    def __init__(self, folder: Path, behind: str, serve: Callable[..., Any]) -> None:
        self.folder, self.behind = folder, behind
        self.home = folder / "home"
        self.home.mkdir()
        self.asked: list[str] = []
        self.bodies: list[Record] = []
        self.before: Callable[[str, str], object] = lambda *_: None
        self.ready_timeout = 0
        self.ci: FakeCi | None = None
        self.more = ""  # further lines of [gitlab]
        self.folders = {"/var/lib/provision": self.home}
        self.web = serve(self._forward)

    def _forward(self, asked: Any) -> Any:
        self.asked.append(f"{asked.method} {urlsplit(asked.path).path.removeprefix('/api/v4')}")
        sent = asked.body if asked.body.startswith(b"{") else b"{}"
        self.bodies.append(json.loads(sent))
        self.before(asked.method, asked.path)
        if self.ci is not None and (answer := self.ci.answer(asked)) is not None:
            return answer
        return forwarded(asked, self.behind)

    def ask(self, method: str, path: str, **data: Any) -> Any:
        """An administrator's request, without the recorder; the answer's JSON."""
        headers = {"PRIVATE-TOKEN": "the-api-token", "Content-Type": "application/json"}
        text = json.dumps(data).encode() if data else None
        request = urllib.request.Request(f"{self.behind}/api/v4{path}", text, headers, method=method)
        status, answer, _ = answer_of(request)
        assert status < 400, f"{method} {path}: {status} {answer!r}"
        return json.loads(answer) if answer else None

    def faults(self, *faults: Record) -> None:
        """Makes GitLab give these wrong answers from now on."""
        path = self.folder / "gitlab/etc/gitlab-standin/api-faults.json"
        path.write_text(json.dumps(faults))

    @property
    def project(self) -> str:
        """The project's address below /api/v4."""
        return f"/projects/{quote(PROJECT, safe='')}"

    @property
    def variables(self) -> dict[str, Record]:
        """The project's variables by name and scope."""
        found = self.ask("GET", f"{self.project}/variables")
        return {f"{one['key']} {one['environment_scope']}": one for one in found}

    @property
    def kept(self) -> dict[str, Record]:
        """The same as GitLab stores them, with hidden values."""
        return {f"{one['key']} {one['environment_scope']}": one for one in self.database["variables"]}

    def runner(self, description: str, **fields: Any) -> int:
        """Creates a runner; its id."""
        wanted = {"runner_type": "project_type", "project_id": 2, "description": description, **fields}
        if wanted["runner_type"] != "project_type":
            del wanted["project_id"]
        return int(self.ask("POST", "/user/runners", **wanted)["id"])

    def commit(self, text: str, path: str = ".gitlab-ci.yml", branch: str = "main") -> None:
        """Commits a file, as a user would."""
        place = f"{self.project}/repository/files/{quote(path, safe='')}"
        status = answer_of(self._get(f"{place}?ref={quote(branch, safe='')}"))[0]
        self.ask("PUT" if status == 200 else "POST", place, branch=branch, commit_message="by hand", content=text)

    def committed(self, branch: str = "main", path: str = ".gitlab-ci.yml") -> str:
        """The file of a branch; "" when there is none."""
        place = f"{self.project}/repository/files/{quote(path, safe='')}/?ref={quote(branch, safe='')}"
        status, answer, _ = answer_of(self._get(place))
        return base64.b64decode(json.loads(answer)["content"]).decode() if status == 200 else ""

    def installs_rails(self) -> Paths:
        """From now on this machine is the GitLab host, with `gitlab-rails`."""
        paths = Paths(self.folder / "gitlab")
        self.folders |= {one: paths.root / one[1:] for one in ("/opt/gitlab", "/etc/gitlab")}
        program = paths.opt / "bin/gitlab-rails"
        program.parent.mkdir(parents=True)
        program.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path[:0] = {[*map(str, _PACKAGES)]}\n"
            "from pathlib import Path\nfrom provision_lab.standins.gitlab_ce.host import layout, rails\n"
            f"open({str(self.folder / 'rails.log')!r}, 'a').write(repr(sys.argv) + '\\n')\n"
            f"sys.exit(rails.main(sys.argv[1:], layout.Paths(Path({str(paths.root)!r}))))\n"
        )
        program.chmod(0o755)
        paths.rails_rc.parent.mkdir(parents=True)
        paths.rails_rc.write_text("")
        return paths

    @property
    def tokens(self) -> list[Record]:
        """The tokens in GitLab's database, but those of the seed."""
        seeded = [SEED["api_token"], *(one["token"] for one in SEED["tokens"])]
        return [one for one in self.database["tokens"] if one["token"] not in seeded]

    @property
    def database(self) -> Record:
        """What GitLab stores."""
        return dict(json.loads((self.folder / "gitlab/var/opt/gitlab/standin/db.json").read_text()))

    def _get(self, path: str) -> urllib.request.Request:
        return urllib.request.Request(f"{self.behind}/api/v4{path}", headers={"PRIVATE-TOKEN": "the-api-token"})

    @property
    def state(self) -> Record:
        """state.json."""
        path = self.home / "state.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def records(self, task: str) -> Record:
        """What a task has recorded on the host."""
        return dict(self.state.get("owners", {}).get(task, {}))

    def forget(self) -> None:
        """Deletes state.json."""
        (self.home / "state.json").unlink(missing_ok=True)

    def host(self, text: str, **options: str) -> Host:
        """The GitLab host of an inventory with `text` in it; options as for `inventory`."""
        return self.inventory(text, "gitlab", **options)

    def inventory(self, text: str, name: str, *, token: str = "the-api-token", url: str = "") -> Host:
        """A host of an inventory with `text` in it."""
        file = self.folder / "inventory.toml"
        given = f'api_token = "{token}"\n' if token else ""
        gitlab = f'[gitlab]\nexternal_url = "{url or self.web.url}"\n{given}ready_timeout = {self.ready_timeout}\n{self.more}'
        file.write_text(f"{gitlab}{BASE}{text}")
        file.chmod(0o600)
        (found,) = [one for one in load((file,)).hosts if one.name == name]
        return found

    def resources(self, name: str, text: str, **options: str) -> tuple[Resource, ...]:
        """The resources of a task."""
        (task,) = [one for one in SHIPPED if one.name == name]
        return task.resources(self.host(text, **options))

    def run(self, name: str, text: str, *, check: bool = False, named: str = "all", **options: str) -> RunReport:
        """A run in which the user named `named`. Its requests are in `asked`, their bodies in `bodies`."""
        self.asked.clear()
        self.bodies.clear()
        (task,) = [one for one in SHIPPED if one.name == name]
        host, report = self.host(text, **options), RunReport()
        run = Run(
            (named,),
            [host],
            [HostPlay({host.name: (task,)})],
            lambda _: LocalSession(self.folders),
            [report],
            check=check,
        )
        report.summary = run.execute()
        return report

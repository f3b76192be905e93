"""What is sent to workers and what is refused, the functions of a worker, and lost workers. Nothing here needs a cluster."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from provision.cluster import client, worker
from provision.cluster import shipment as shipments
from provision.cluster.client import ClusterRun, split
from provision.cluster.scheduler import scheduler_address
from provision.cluster.shipment import Sealed, Shipment, Unpacked, pack
from provision.cluster.worker import Outbox, WorkerRun
from provision.engine.assemble import Options, assemble
from provision.engine.desired_state import DesiredState
from provision.engine.events import Bus, ErrorEvent, HostSummary, Message
from provision.engine.own_files import _FINDER
from provision.engine.play_graph import PlayEnded
from provision.engine.run import Run
from provision.errors import Locked, UsageError
from provision.inventory.secrets import supplied
from provision.resources import File
from provision.secret import Secret
from tests.support.waiting import wait_for

INVENTORY = """
[hosts."web[1:5]"]
[registry]
external_url = "https://gitlab.example.com:5555"
[registry.certificate]
ca = "ca.pem"
local_fullchain = "pair/fullchain.pem"
local_key = "pair/privkey.pem"
[ssh]
identity_file = "id_ed25519"
[code]
word = { env = "CODE_WORD" }
other = { env = "UNUSED" }
"""
PLAYBOOK = '''"""A task that needs a secret."""
from pathlib import Path
from provision import File, Host, Registry, SecretSource, Table, task


class Code(Table):
    """[code]"""

    word: SecretSource
    """The word."""
    other: SecretSource | None = None
    """Another one."""
    source: Path | None = None
    """A local folder."""


@task(settings=Code, uses=(Registry,))
def code(host: Host, wanted: Code):
    """Write the word."""
    yield File("/etc/word", wanted.word.resolve(), mode=0o600)
    yield File("/etc/size", Path(__file__).with_name("size.txt").read_bytes())
'''


class Folder:
    """The folder of an inventory with its playbooks and files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str = "text") -> Path:
        """Writes a file."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def pack(self, *settings: str, encrypted: bool = True, password: str | None = None, **replaced: str) -> Shipment:
        """Assembles a run of the task `code`, as the client does, and packs it."""
        run, options = self.run(*settings, password=password, **replaced)
        DesiredState(run.hosts, run.plays, run.names, run.mistakes)
        return pack(run, options, encrypted=encrypted, details=True)

    def run(self, *settings: str, password: str | None = None, **replaced: str) -> tuple[Run, Options]:
        """Assembles a run of the task `code`. `replaced`: new values for keys of the inventory."""
        text = INVENTORY
        for old, new in replaced.items():
            text = text.replace(f"{old} = ", f"{old} = {new} #")
        self.write("inventory.toml", text)
        options = Options(("code",), (self.path / "inventory.toml",), settings, become_password=password)
        return assemble(options)[0], options

    def sent(self, shipment: Shipment) -> set[str]:
        """The names of the sent files."""
        return {str(Path(one.path).relative_to(self.path)) for one in shipment.files}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A folder with playbooks, templates, a certificate with its key, and an SSH key."""
    made = Folder(tmp_path / "estate")
    for name in ("ca.pem", "pair/fullchain.pem", "pair/privkey.pem", "id_ed25519", "notes.txt", "playbooks/size.txt"):
        made.write(name)
    made.write("playbooks/code.py", PLAYBOOK)
    made.write("templates/note.j2")
    made.write("playbooks/.git/config")
    monkeypatch.chdir(made.path)
    monkeypatch.setenv("CODE_WORD", "correct-horse-battery")
    monkeypatch.delenv("UNUSED", raising=False)
    return made


FILES = {"inventory.toml", "ca.pem", "pair/fullchain.pem", "pair/privkey.pem"}
OWN = {"playbooks/code.py", "playbooks/size.txt", "templates/note.j2"}


def test_the_files_of_a_run(folder: Folder) -> None:
    """The inventory, playbooks, templates and the files that tables name are sent; SSH keys, .git and other files are not."""
    shipment = folder.pack()
    assert folder.sent(shipment) == FILES | OWN
    assert shipment.links == (str(folder.path / "id_ed25519"),)


def test_private_keys_stay_here_without_tls(folder: Folder) -> None:
    """Over TCP the worker reads the private key, and the file of a secret, at the same path."""
    folder.write("word.txt")
    shipment = folder.pack(encrypted=False, word='{ file = "word.txt" }')
    assert folder.sent(shipment) == (FILES | OWN) - {"pair/privkey.pem"}
    assert set(shipment.links) == {str(folder.path / name) for name in ("id_ed25519", "pair/privkey.pem", "word.txt")}
    assert shipment.secrets == {}
    assert folder.sent(folder.pack(word='{ file = "word.txt" }')) == FILES | OWN | {"word.txt"}


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ('{ env = "CODE_WORD" }', "code.word (env)"),
        ('{ command = ["echo", "correct"] }', "code.word (command)"),
        ('"correct-horse"', "code.word (text in "),
    ],
)
def test_secrets_are_refused_over_tcp(folder: Folder, word: str, named: str) -> None:
    """The message names each secret of the client and of the inventory that a task of this run needs."""
    with pytest.raises(UsageError, match="secrets are not sent over tcp://") as refused:
        folder.pack(encrypted=False, word=word)
    assert named in refused.value.text
    assert "code.other" not in refused.value.text
    assert "correct" not in str(refused.value)
    assert "tls://" in refused.value.hint


def test_every_secret_is_named(folder: Folder) -> None:
    """-K, --set, a password in a URL, and a secret in a table that this run does not read."""
    folder.write("word.txt")
    setting = ("registry.login={username='a', password='correct-horse', image='a/b'}",)
    with pytest.raises(UsageError) as refused:
        folder.pack(*setting, encrypted=False, password="sesame-open", word='{ file = "word.txt" }')
    assert "the sudo password of -K" in refused.value.text
    assert "registry.login.password (text in --set)" in refused.value.text
    assert "sesame" not in str(refused.value)


def test_a_playbook_that_others_can_change_is_not_sent(folder: Folder) -> None:
    """It is not used here. On the worker it would belong to the worker's user, and would be trusted."""
    (folder.path / "playbooks" / "evil.py").write_text("raise SystemExit")
    (folder.path / "playbooks" / "evil.py").chmod(0o666)
    assert folder.sent(folder.pack()) == FILES | OWN


def test_links_out_of_the_folder_are_refused(folder: Folder, tmp_path: Path) -> None:
    """A link must not add a file of another folder to what is sent."""
    (tmp_path / "secret").write_text("text")
    (folder.path / "playbooks" / "link.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match=r"link\.txt is a link to .*secret, outside"):
        folder.pack()


def test_the_size_is_limited(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler passes the files to each worker."""
    monkeypatch.setattr(shipments, "LIMIT", 500)
    with pytest.raises(UsageError, match="too many to send"):
        folder.pack()


def test_a_git_repository_is_not_sent(folder: Folder) -> None:
    """The worker must have it at the same path."""
    repository = folder.path / "hello"
    repository.mkdir()
    (repository / "README").write_text("text")
    assert "hello/README" in folder.sent(folder.pack("code.source=hello"))
    subprocess.run(["git", "init", "-q", repository], check=True)
    shipment = folder.pack("code.source=hello")
    assert str(repository) in shipment.links
    assert not any("hello" in one for one in folder.sent(shipment))


def test_unpacked_files(folder: Folder, tmp_path: Path) -> None:
    """Only the worker's user can read them, their paths below the private folder are the client's, and nothing is left."""
    estate = Unpacked(Shipment.opened(folder.pack().sealed()), str(tmp_path))
    root = Path(estate.root)
    assert root.stat().st_mode & 0o777 == 0o700
    assert estate.path(folder.path / "ca.pem").read_text() == "text"
    assert estate.path(folder.path / "ca.pem").stat().st_mode & 0o777 == 0o600
    assert estate.path(folder.path / "id_ed25519").readlink() == folder.path / "id_ed25519"
    assert estate.client_path(f"{root}/a/b: no") == "/a/b: no"
    estate.remove()
    assert not root.exists()
    assert (folder.path / "id_ed25519").exists()


def test_a_worker_has_the_same_run(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """It assembles the run from the files, with the client's secrets, and removes the playbooks at the end."""
    shipment = folder.pack()
    monkeypatch.delenv("CODE_WORD")
    monkeypatch.chdir("/")
    (folder.path / "playbooks" / "code.py").unlink()
    prepared = asyncio.run(worker.prepare("run", shipment.sealed()))
    try:
        assert (prepared.error, prepared.missing, prepared.tasks) == ("", (), shipment.tasks)
        current = worker._runs["run"]
        assert [one.name for one in current.run.hosts] == [f"web{number}" for number in range(1, 6)]
        with supplied(worker._supply(shipment, current.estate)):
            desired = DesiredState(current.run.hosts, current.run.plays)["web3"]
        assert "correct-horse-battery" in [
            one.resource.content.reveal()
            for owned in desired.tasks.values()
            for one in owned
            if isinstance(one.resource, File) and isinstance(one.resource.content, Secret)
        ]
        busy = asyncio.run(worker.prepare("other", shipment.sealed()))
        assert busy.error == "it works for another run"
        assert any(path.is_relative_to(current.estate.root) for path, _ in _FINDER.texts.values())
    finally:
        asyncio.run(worker.finish("run"))
    assert not Path(current.estate.root).exists()
    assert not any(path.is_relative_to(current.estate.root) for path, _ in _FINDER.texts.values())
    assert asyncio.run(worker.fetch("run", {})) is None


def test_a_missing_file_is_named_with_its_path_on_the_client(folder: Folder) -> None:
    """Before any host is contacted."""
    shipment = folder.pack()
    (folder.path / "id_ed25519").unlink()
    prepared = asyncio.run(worker.prepare("run", shipment.sealed()))
    assert prepared.missing == (f"ssh.identity_file ({folder.path}/id_ed25519)",)
    assert worker._runs == {}


def test_a_run_ends_when_its_client_is_gone(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a minute without a request, the worker does what the first Ctrl-C does, and removes the files at the end."""
    monkeypatch.setattr(worker, "SILENCE_SECONDS", 0.1)

    async def abandoned() -> WorkerRun:
        assert (await worker.prepare("run", folder.pack().sealed())).error == ""
        current = worker._runs["run"]
        await asyncio.to_thread(wait_for, lambda: not worker._runs, "the run has ended")
        return current

    current = asyncio.run(abandoned())
    assert current.interrupts == 1
    assert not Path(current.estate.root).exists()


def test_hosts_are_split_evenly() -> None:
    """Each worker has hosts from the whole inventory."""
    assert split(["a", "b", "c", "d", "e"], 2) == [["a", "c", "e"], ["b", "d"]]
    assert split(["a"], 3) == [["a"]]


@pytest.mark.parametrize("text", ["scheduler:8786", "tcp://scheduler:8786"])
def test_addresses(text: str) -> None:
    """tcp:// may be left out."""
    assert scheduler_address(text) == "tcp://scheduler:8786"


@pytest.mark.parametrize("text", ["scheduler", "tls://scheduler", "http://scheduler:8786", "tcp://:8786", ""])
def test_wrong_addresses(text: str) -> None:
    """They are refused."""
    with pytest.raises(UsageError, match="not the address of a Dask scheduler"):
        scheduler_address(text)


def test_messages_are_kept_until_they_have_arrived() -> None:
    """Messages of an answer that was lost are sent again. Messages that have arrived are not."""
    outbox = Outbox()
    first, second = Message("a", "t", "1"), PlayEnded("a", 0)
    outbox.add(first)
    assert outbox.after(0) == (0, (first,))
    outbox.add(second)
    assert outbox.after(0) == (0, (first, second))
    assert outbox.after(1) == (1, (second,))
    assert outbox.after(2) == (2, ())


class Events:
    """A listener that keeps all events."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def on(self, event: Any) -> None:
        """Keeps an event."""
        self.all.append(event)

    def close(self) -> None:
        """Does nothing."""


def test_a_host_that_three_workers_were_lost_with_is_reported(folder: Folder) -> None:
    """After the first two losses, another worker is to run the host. After the third, the host has failed."""
    made, events = ClusterRun(*folder.run(), "tcp://scheduler:8786", print), Events()
    made._bus = Bus([events])

    async def lose_workers() -> None:
        for number in range(client.ATTEMPTS):
            made._hosts["web1"].attempts += 1
            made._tasks[number] = client._Task(number, f"tcp://{number}", {"web1": None})
            await made._lose(client._Worker(f"tcp://{number}"), "it has left the cluster")
        await asyncio.sleep(0)  # the jobs begin
        for job in made._jobs:
            job.cancel()

    asyncio.run(lose_workers())
    assert [one.text for one in events.all if isinstance(one, Message)] == [
        f"the Dask worker tcp://{number} was lost (it has left the cluster): another worker runs the host again"
        for number in (0, 1)
    ]
    (error,) = [one for one in events.all if isinstance(one, ErrorEvent)]
    assert (error.host, error.error) == ("web1", "WorkerLost")
    assert "tcp://2 was lost (it has left the cluster), and 2 workers before it" in error.text
    assert made._hosts["web1"].summary == HostSummary(failed=1)


def test_hosts_are_reported_when_no_worker_is_left(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """New workers are awaited for WORKERS_SECONDS. Then every host without a result has failed."""
    monkeypatch.setattr(client, "WORKERS_SECONDS", 0.0)
    made, events = ClusterRun(*folder.run(), "tcp://scheduler:8786", print), Events()
    made._bus = Bus([events])
    asyncio.run(made._divide(["web1", "web2"], again=True))
    errors = [one for one in events.all if isinstance(one, ErrorEvent)]
    assert [one.host for one in errors] == ["web1", "web2"]
    assert all("no other worker is left" in one.text for one in errors)


class Lockable:
    """A session on a host whose lock another worker holds until `ready` was called `refusals` times."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.closed = 0

    def ready(self) -> None:
        """Refuses, or holds the lock."""
        if self.refusals:
            self.refusals -= 1
            raise Locked("web1: another run holds the host's lock", hint="wait for it to end")

    def close(self) -> None:
        """Counts."""
        self.closed += 1


def test_the_lock_of_a_lost_worker_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait is reported once. Each refused session is closed."""
    monkeypatch.setattr(worker, "_LOCK_PAUSE", 0.01)
    session, outbox = Lockable(3), Outbox()
    connect = worker._WaitForLock(lambda _: session, outbox, lambda: False)  # type: ignore[arg-type,return-value]
    assert connect(SimpleNamespace(name="web1")) is session  # type: ignore[arg-type]
    assert session.closed == 3
    (message,) = outbox.after(0)[1]
    assert isinstance(message, Message)
    assert (message.host, message.kind) == ("web1", "waiting")


def test_a_lock_that_does_not_become_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint names sshd's setting that decides how long it takes."""
    monkeypatch.setattr(worker, "LOCK_SECONDS", -1.0)
    connect = worker._WaitForLock(lambda _: Lockable(1), Outbox(), lambda: False)  # type: ignore[arg-type,return-value]
    with pytest.raises(Locked, match="another run holds the host's lock; it was not free within") as caught:
        connect(SimpleNamespace(name="web1"))  # type: ignore[arg-type]
    assert "ClientAliveInterval" in caught.value.hint


def test_sealed_bytes_are_not_shown() -> None:
    """Dask logs the arguments of functions that raise."""
    assert "secret" not in f"{Sealed(b'secret')!r} {Sealed(b'secret')}"

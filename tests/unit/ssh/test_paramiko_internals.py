"""What paramiko_internals.py assumes about paramiko, and that no other module depends on paramiko's internals.

A failure after an upgrade of paramiko means: read the named function in the new version, then correct
provision/ssh/paramiko_internals.py or the assumption below.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import paramiko
import pytest
from paramiko.auth_handler import AuthHandler
from paramiko.common import (
    MSG_CHANNEL_REQUEST,
    MSG_GLOBAL_REQUEST,
    MSG_SERVICE_ACCEPT,
    MSG_SERVICE_REQUEST,
    MSG_USERAUTH_REQUEST,
)
from paramiko.message import Message
from paramiko.packet import Packetizer

import provision.ssh
from provision.ssh import connect
from provision.ssh.host_keys import _ALGORITHMS
from provision.ssh.paramiko_internals import (
    EagerAuthHandler,
    SessionTransport,
    SocketAgent,
    algorithms_of_host,
    output_ended,
    request_refused,
    wait_for_exit,
)

if TYPE_CHECKING:
    from conftest import Sshd

ROOM = Path(provision.ssh.__file__).parent
# Public by their names, but in no documentation of paramiko.
UNDOCUMENTED = {
    "auth_handler",
    "eof_received",
    "event_ready",
    "exit_status",
    "handshake_timeout",
    "in_buffer",
    "in_stderr_buffer",
    "initial_kex_done",
    "preferred_ciphers",
    "preferred_keys",
    "remote_chanid",
    "set_event",
    "out_window_size",
    "status_event",
}


def private_attributes(module: Path) -> Iterator[str]:
    """Each use of another object's private attribute, and each use or override of an undocumented one."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Attribute):
            private = node.attr.startswith("_") and not node.attr.startswith("__")
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if (private and not own) or node.attr in UNDOCUMENTED:
                yield f"{module.name} line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.ClassDef) and any("paramiko" in ast.unparse(base) for base in node.bases):
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and part.name.startswith("_") and not part.name.startswith("__"):
                    yield f"{module.name} line {part.lineno}: def {part.name}"


def test_only_one_module_uses_private_attributes() -> None:
    """paramiko's, fabric's and invoke's internals are used in paramiko_internals.py only."""
    others = [module for module in ROOM.glob("*.py") if module.name != "paramiko_internals.py"]
    assert len(others) > 8
    assert [use for module in others for use in private_attributes(module)] == []
    assert list(private_attributes(ROOM / "paramiko_internals.py")), "the search finds such uses"


def test_no_other_room_imports_paramiko() -> None:
    """fabric, paramiko and invoke are imported in provision/ssh only."""
    product = ROOM.parent
    for module in product.rglob("*.py"):
        if ROOM not in module.parents:
            imported = {
                name.partition(".")[0] for node in ast.walk(ast.parse(module.read_text())) for name in _imported(node)
            }
            assert not imported & {"fabric", "paramiko", "invoke"}, module


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [one.name for one in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


class RecordingTransport:
    """Stands for the transport of an AuthHandler: records the types of the messages it sends."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.session_id = b"session"
        self.sent: list[int] = []
        self.server_extensions: dict[str, bytes] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(paramiko.Transport, name)

    def _send_message(self, message: Message) -> None:
        self.sent.append(message.asbytes()[0])

    def _log(self, *_: object) -> None:
        pass

    def get_log_channel(self) -> str:
        return "paramiko"


def test_the_login_is_sent_with_the_service_request() -> None:
    """Two messages leave without an answer in between; paramiko's own handler sends the second after the answer."""
    sent = {}
    for handler_class in (AuthHandler, EagerAuthHandler):
        transport = RecordingTransport()
        handler = handler_class(transport)
        handler.auth_none("root", threading.Event())
        sent[handler_class] = transport.sent
    assert sent[AuthHandler] == [MSG_SERVICE_REQUEST]
    assert sent[EagerAuthHandler] == [MSG_SERVICE_REQUEST, MSG_USERAUTH_REQUEST]


def test_the_servers_acceptance_is_handled_by_the_overridden_method() -> None:
    """paramiko sends nothing when the acceptance of the service arrives late."""
    handlers = EagerAuthHandler(RecordingTransport())._client_handler_table
    assert handlers[MSG_SERVICE_ACCEPT].__name__ == "_parse_service_accept"


def test_auth_publickey_is_the_method_that_is_repeated() -> None:
    """paramiko's method creates an AuthHandler and waits for its response; ours does the same with another class."""
    source = inspect.getsource(paramiko.Transport.auth_publickey)
    for part in ("self.auth_handler = AuthHandler(self)", "self.auth_handler.auth_publickey(username, key, my_event)"):
        assert part in source
    assert "return self.auth_handler.wait_for_response(my_event)" in source


def test_every_host_key_algorithm_is_one_that_paramiko_can_verify() -> None:
    """`_key_info` contains the algorithms that host_keys.py offers."""
    offered = {one for algorithms in _ALGORITHMS.values() for one in algorithms}
    assert offered <= set(paramiko.Transport._key_info)  # type: ignore[attr-defined]


def test_ciphers_and_keys_are_read_from_the_properties() -> None:
    """The key exchange offers what `preferred_ciphers` and `preferred_keys` return."""
    source = inspect.getsource(paramiko.Transport._send_kex_init)  # type: ignore[attr-defined]
    assert "preferred_ciphers" in source
    assert "preferred_keys" in source
    assert any("-gcm@" in one for one in paramiko.Transport._preferred_ciphers)  # type: ignore[attr-defined]


def test_stop_thread_reads_the_closed_flag_of_the_socket() -> None:
    """The reason for SocketState."""
    assert "self.sock._closed" in inspect.getsource(paramiko.Transport.stop_thread)


def test_the_state_of_a_new_channel() -> None:
    """The attributes that are read exist, with the values that mean "open" and "no exit code yet"."""
    channel = paramiko.Channel(1)
    assert not output_ended(channel)
    assert not request_refused(channel)
    assert isinstance(channel.remote_chanid, int)


def test_a_refused_request_closes_the_channel() -> None:
    """A closed channel without an accepted request is a refusal; with one it is an ended program."""
    refused, accepted = paramiko.Channel(1), paramiko.Channel(2)
    accepted._request_success(Message())  # type: ignore[attr-defined]
    for channel in (refused, accepted):
        with channel.lock:
            channel._set_closed()  # type: ignore[attr-defined]
    assert request_refused(refused)
    assert not request_refused(accepted)


def test_the_exit_code_of_a_channel() -> None:
    """The exit-status request sets the code and wakes who waits for it."""
    channel = paramiko.Channel(1)
    channel.transport = paramiko.Transport.__new__(paramiko.Transport)
    channel.transport.server_object = None
    request = Message()
    request.add_string("exit-status")
    request.add_boolean(False)
    request.add_int(7)
    request.rewind()
    channel._handle_request(request)  # type: ignore[attr-defined]
    assert channel.status_event.is_set()
    assert wait_for_exit(cast(SessionTransport, None), channel, 5) == 7


def test_exec_command_is_the_request_that_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """`execute` sends the message that `Channel.exec_command` sends, and does not wait."""
    sent: list[bytes] = []
    monkeypatch.setattr(SessionTransport, "_send_user_message", lambda _, message: sent.append(message.asbytes()))
    transport = SessionTransport.__new__(SessionTransport)
    channel = paramiko.Channel(1)
    channel.transport = transport
    channel.active, channel.remote_chanid = True, 4
    monkeypatch.setattr(channel, "_wait_for_event", lambda: None)
    channel.exec_command("true")
    transport.execute(channel, "true")
    assert sent[0] == sent[1]
    assert sent[0][0] == MSG_CHANNEL_REQUEST
    assert not channel.event_ready


def test_a_ping_is_answered(sshd: Sshd) -> None:
    """The host answers a global request that asks for an answer, although it does not know it."""
    session = connect(sshd.target(), lock=False, who="test")
    try:
        session.ready()
        received = session.traffic.bytes_received
        session._connection.transport.ping()
        for _ in range(200):
            if session.traffic.bytes_received > received:
                break
            threading.Event().wait(0.02)
        assert session.traffic.bytes_received > received
    finally:
        session.close()


def test_a_ping_asks_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Message type, name, and the flag that requests an answer (RFC 4254, section 4)."""
    sent: list[Message] = []
    monkeypatch.setattr(SessionTransport, "_send_user_message", lambda _, message: sent.append(message))
    SessionTransport.__new__(SessionTransport).ping()
    message = Message(sent[0].asbytes())
    assert message.get_byte()[0] == MSG_GLOBAL_REQUEST
    assert message.get_text() == "keepalive@openssh.com"
    assert message.get_boolean()


def test_the_hosts_offers_are_kept_before_they_are_compared() -> None:
    """`_parse_kex_init` reads the message through `_really_parse_kex_init`, from its beginning."""
    source = inspect.getsource(paramiko.Transport._parse_kex_init)  # type: ignore[attr-defined]
    assert "parsed = self._really_parse_kex_init(m)" in source
    assert algorithms_of_host(None) == ("", [], [])


def test_an_agent_is_contacted_by_its_socket(tmp_path: Path) -> None:
    """`_connect` asks for the list of keys; an agent that is not there, or is none, has no keys."""
    path = str(tmp_path / "agent")
    assert SocketAgent(path).get_keys() == ()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        requests: list[bytes] = []

        def serve() -> None:
            for answer in (b"\0\0\0\5\x0c\0\0\0\0", b""):
                with server.accept()[0] as caller:
                    requests.append(caller.recv(100))
                    caller.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        for _ in range(2):  # an empty list of keys, then a connection that ends
            agent = SocketAgent(path)
            assert agent.get_keys() == ()
            agent.close()
        thread.join(10)
    assert requests == [b"\0\0\0\1\x0b"] * 2  # SSH_AGENTC_REQUEST_IDENTITIES


@pytest.mark.parametrize(
    ("function", "digest"),
    [
        (paramiko.Transport.run, "d658434778e57b94"),
        (paramiko.Transport.start_client, "62054360b5da02e3"),
        (paramiko.Transport.open_channel, "e89cdf34ea0f20b1"),
        (Packetizer.read_message, "d5d2c6765cab09ef"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_what_the_driven_transport_repeats_or_relies_on_is_unchanged(function: Any, digest: str) -> None:
    """Each change of such a function may require the same change in `SessionTransport` or `Packets`."""
    assert hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16] == digest

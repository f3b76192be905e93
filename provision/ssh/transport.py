"""paramiko's transport, a round trip shorter, and with a question whether the peer is there."""

from __future__ import annotations

import threading
from typing import Any

import paramiko
from paramiko.auth_handler import AuthHandler
from paramiko.common import cMSG_CHANNEL_REQUEST, cMSG_GLOBAL_REQUEST
from paramiko.message import Message
from paramiko.ssh_exception import SSHException


class EagerAuthHandler(AuthHandler):
    """Sends the authentication right behind the request for its service, as RFC 4252 leaves room for.

    The server answers both in order, so waiting for the first answer would be a round trip for nothing.
    """

    def _request_auth(self) -> None:
        super()._request_auth()  # type: ignore[misc]
        accepted = Message()
        accepted.add_string("ssh-userauth")
        accepted.rewind()
        super()._parse_service_accept(accepted)  # type: ignore[misc]

    def _parse_service_accept(self, m: Message) -> None:
        """The answer that was not waited for."""


class QuickTransport(paramiko.Transport):
    """The transport of a session. `algorithms`: the host key types to ask for, best first."""

    def __init__(self, sock: Any, algorithms: tuple[str, ...], **options: Any) -> None:
        super().__init__(sock, **options)
        self._algorithms = algorithms

    @property
    def preferred_ciphers(self) -> tuple[str, ...]:
        """GCM first: one call into OpenSSL per packet instead of two and an HMAC in Python."""
        gcm = [one for one in super().preferred_ciphers if "-gcm@" in one]
        return (*gcm, *(one for one in super().preferred_ciphers if one not in gcm))

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """What is offered: none of the certificate types, which nobody here could judge."""
        return tuple(one for one in self._algorithms if one in self._key_info)  # type: ignore[attr-defined]

    def auth_publickey(self, username: str, key: paramiko.PKey, event: Any = None) -> list[str]:
        """As paramiko's, over the eager handler. Raises SSHException and its kin."""
        if not self.is_active() or not self.initial_kex_done:
            raise SSHException("No existing session")
        answered = event or threading.Event()
        self.auth_handler = EagerAuthHandler(self)
        self.auth_handler.auth_publickey(username, key, answered)
        if event is not None:
            return []
        answer: list[str] = self.auth_handler.wait_for_response(answered)
        return answer

    def ping(self) -> None:
        """Asks the peer for any answer at all, without waiting for it: a refusal proves life as well."""
        question = Message()
        question.add_byte(cMSG_GLOBAL_REQUEST)
        question.add_string("keepalive@openssh.com")
        question.add_boolean(True)
        self._send_user_message(question)  # type: ignore[attr-defined]

    def execute(self, channel: paramiko.Channel, command: str) -> None:
        """`Channel.exec_command` without waiting for its answer: what is sent next is read by the program.

        A server answers requests in order, so nothing overtakes it; one that refuses closes the channel.
        """
        request = Message()
        request.add_byte(cMSG_CHANNEL_REQUEST)
        request.add_int(channel.remote_chanid)
        request.add_string("exec")
        request.add_boolean(True)
        request.add_string(command)
        channel._event_pending()  # type: ignore[attr-defined]
        self._send_user_message(request)  # type: ignore[attr-defined]

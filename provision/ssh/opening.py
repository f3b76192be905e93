"""What the bootstrap answers before the first batch, and what is wrong when it does not."""

from __future__ import annotations

from dataclasses import dataclass, field

from provision.errors import BecomeError, HostFailed, Locked, ProvisionError
from provision.secret import mask
from provision.ssh.bootstrap import READY, STATE_DIR

_NOISE_KEPT = 4000  # bytes of what was printed before the hello: login banners, sudo's refusal


@dataclass
class Opening:
    """The hello of both streams. Checked when the first answer arrives, so that it costs no round trip.

    `sudo` says whether sudo was asked, `password` whether it was given one.
    """

    host: str
    user: str
    nonce: str
    sudo: bool
    password: bool
    state: str = ""
    uid: str = ""
    holder: str = ""
    _hello: set[int] = field(default_factory=set)
    _noise: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))

    def noise(self, stream: int, piece: bytes) -> None:
        """Bytes before the hello: kept for a message, never read as a result."""
        self._noise[stream].extend(piece)
        del self._noise[stream][:-_NOISE_KEPT]

    def hello(self, stream: int, rest: str) -> None:
        """The shell greets on one of its streams."""
        self._hello.add(stream)
        if stream == 0:
            self.uid, _, rest = rest.partition(" ")
            self.state, _, self.holder = rest.partition(" ")

    def settled_on(self, stream: int) -> bool:
        """Whether what comes on this stream now is output of commands."""
        return stream in self._hello

    @property
    def ready(self) -> bool:
        """Whether the root shell has started to read: sudo is past its password."""
        return READY in self._noise[0]

    @property
    def words_of_stderr(self) -> bytes:
        """What sudo has said so far."""
        return bytes(self._noise[1])

    @property
    def settled(self) -> bool:
        """Whether both streams have greeted."""
        return len(self._hello) == 2

    @property
    def refused(self) -> bool:
        """Whether the shell has said that it ends here."""
        return self.settled and self.state not in ("none", "held")

    def check(self) -> None:
        """Raises what the hello says is wrong; nothing when it is well."""
        if not self.refused:
            return
        if self.state == "busy":
            holder = self.holder.strip() or "another run, which left no name"
            raise Locked(
                f"{self.host}: another run holds the host: {holder}",
                hint="wait for it to end; if its controller is gone, end the host-pid it names on the host",
            )
        if self.state == "unprivileged":
            raise BecomeError(
                f"{self.host}: {self.user} has user id {self.uid} there, and root is needed",
                hint="set become = true in [ssh] for sudo, or log in as root",
            )
        raise HostFailed(
            f"{self.host}: the host's lock in {STATE_DIR} cannot be taken: {self._words() or 'no reason given'}",
            hint="is the disk full or read-only? /var/lib must be writable, and flock (util-linux) installed",
        )

    def ended(self, code: int | None) -> ProvisionError:
        """The shell ended without a hello: sudo refused, or there is no shell to log in to."""
        words = f": {self._words()}" if self._words() else ""
        if self.sudo and self.password:
            return self.wrong_password()
        if self.sudo and code == 127:
            return BecomeError(f"{self.host}: there is no sudo{words}", hint="install sudo, or log in as root")
        if self.sudo:
            return BecomeError(
                f"{self.host}: sudo gives {self.user} no root shell without a password{words}",
                hint="give the password with -K or become_password, or allow NOPASSWD in sudoers",
            )
        return BecomeError(
            f"{self.host}: the login shell of {self.user} ended at once (code {code}){words}",
            hint="can that user run a command over ssh? Try it by hand",
        )

    def wrong_password(self) -> BecomeError:
        """sudo took the password and did not give a shell for it."""
        words = f" (it said: {self._words()})" if self._words() else ""
        return BecomeError(
            f"{self.host}: sudo refused the password for {self.user}{words}",
            hint="give the right one with -K or become_password, or allow NOPASSWD in sudoers",
        )

    def no_answer(self, seconds: float) -> ProvisionError:
        """Nothing came in time."""
        return BecomeError(
            f"{self.host}: no root shell within {seconds:g} s", hint="does sudo wait there for something else?"
        )

    def _words(self) -> str:
        """The end of what was printed instead of a hello; stderr first."""
        for noise in (self._noise[1], self._noise[0]):
            lines = [line.strip() for line in noise.decode("utf-8", "replace").splitlines() if line.strip()]
            lines = [line for line in lines if not line.startswith("provision-ready")]
            if lines:
                return mask(" / ".join(lines[-3:]))
        return ""

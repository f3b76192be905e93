"""What curl's exit codes mean.  Source: curl(1), EXIT CODES."""

from __future__ import annotations

from typing import Final

NO_PROGRAM: Final = 127
"""The shell's exit code for a program that is not installed."""
# exit code: (cause, remedy)
FAILURES: Final = {
    6: ("its name does not resolve on the host", "check the name and the host's DNS"),
    7: ("the connection is refused", "check address, port and firewall, and that the service runs"),
    28: ("no answer in time", "check the routes and firewalls between the host and the server"),
    35: ("the TLS handshake fails", "check scheme and port: the port may not serve https"),
    NO_PROGRAM: ("curl is not installed on the host", "apt-get install curl"),
    60: (
        "its certificate is not trusted on the host",
        "name its CA in registry.certificate.ca, or install it on the host",
    ),
}


def failure(code: int) -> str:
    """The cause of an exit code, as text."""
    return FAILURES[code][0] if code in FAILURES else f"curl failed with exit code {code}"


def remedy(cause: str) -> str:
    """What to do about a cause that `failure` returned; "" for an unknown one."""
    return dict(FAILURES.values()).get(cause, "")

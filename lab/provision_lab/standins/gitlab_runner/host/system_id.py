"""`.runner_system_id` beside config.toml: `s_` from the machine id, so that cloned machines collide; else `r_`."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from pathlib import Path

_FORM = re.compile(r"[sr]_[0-9a-zA-Z]{12}")


def of(config: str) -> str:
    """The id that goes with this config.toml; made now when there is none or a bad one."""
    path = Path(config).parent / ".runner_system_id"
    if path.exists() and _FORM.fullmatch(text := path.read_text().strip()):
        return text
    made = _from_machine() or "r_" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(12))
    if not path.parent.exists():
        path.parent.mkdir(mode=0o700, parents=True)
    path.write_text(made)
    path.chmod(0o600)
    return made


def _from_machine() -> str:
    for name in ("/var/lib/dbus/machine-id", "/etc/machine-id"):
        if Path(name).exists() and (machine := Path(name).read_text().strip()):
            return "s_" + hmac.new(machine.encode(), b"gitlab-runner", hashlib.sha256).hexdigest()[:12]
    return ""

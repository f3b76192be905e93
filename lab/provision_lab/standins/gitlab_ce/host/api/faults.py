"""Wrong answers on demand: /etc/gitlab-standin/api-faults.json.

    [{"method": "POST", "path": "/api/v4/user/runners", "status": 429,
      "headers": {"Retry-After": "2"}, "body": {"message": "…"}, "delay": 0.5, "times": 1}]

`path` may hold `*`; `method` is any when absent; without `times` the fault stays. The file is rewritten as faults are
used up, so a test can see what is left. `"drop": true` closes the connection without an answer.
"""

from __future__ import annotations

import json
import threading
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..paths import write_atomically  # noqa: TID252 - the package has another name on the host
from .http import Request, Response

_lock = threading.Lock()


class Dropped(Exception):
    """Nothing is to be answered."""


def fault(path: Path, request: Request) -> Response | None:
    """The answer to give instead, or None. Raises Dropped."""
    if not path.exists():
        return None
    with _lock:
        faults: list[dict[str, Any]] = json.loads(path.read_text() or "[]")
        found = next((one for one in faults if _fits(one, request)), None)
        if found is None:
            return None
        if "times" in found:
            found["times"] -= 1
            left = [one for one in faults if one.get("times", 1) > 0]
            write_atomically(path, json.dumps(left, indent=1) + "\n")
    time.sleep(found.get("delay", 0))
    if found.get("drop"):
        raise Dropped
    if "status" not in found:
        return None
    body = found.get("body", {"message": f"{found['status']} on demand"})
    return Response(found["status"], body, found.get("headers", {}))


def _fits(one: dict[str, Any], request: Request) -> bool:
    return one.get("method", request.method) == request.method and fnmatchcase(request.path, one["path"])

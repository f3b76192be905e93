"""Jobs without a pipeline: a file that says what to run stands for what GitLab would hand out.

`job` in the switches' folder holds a shell command. It is taken (the file becomes `job-N.running`), run in a
process group of its own, and ends as `job-N.done` that holds `success`, `failed`, or `canceled` when the service
was stopped under it, as a real job is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import logs

SWITCHES = Path(os.environ.get("GITLAB_RUNNER_STANDIN", "/etc/gitlab-runner-standin"))


@dataclass
class Jobs:
    """The jobs under way."""

    running: dict[int, tuple[subprocess.Popen[bytes], float]] = field(default_factory=dict)

    def take(self, room: int, runner: str) -> None:
        """Starts the job that waits, if there is one and room for it."""
        waiting = SWITCHES / "job"
        # An empty file is one that is being written.
        if len(self.running) >= room or not waiting.exists() or not waiting.stat().st_size:
            return
        number = 1 + len(list(SWITCHES.glob("job-*")))
        claimed = SWITCHES / f"job-{number}.running"
        waiting.rename(claimed)
        child = subprocess.Popen(
            ["/bin/sh", "-c", claimed.read_text()], stdin=subprocess.DEVNULL, start_new_session=True
        )
        self.running[number] = child, time.monotonic()
        logs.info("Checking for jobs... received", job=number, runner=runner)
        logs.info("Added job to processing list", builds=len(self.running), job=number)

    def reap(self) -> None:
        """Says how those ended that have ended."""
        for number, (child, since) in list(self.running.items()):
            code = child.poll()
            if code is None:
                continue
            took = f"{time.monotonic() - since:.3f}"
            if code == 0:
                logs.info("Job succeeded", duration_s=took, job=number)
            else:
                logs.warning(f"Job failed: exit status {code}", duration_s=took, job=number)
            self._ended(number, "success" if code == 0 else "failed")

    def cancel(self) -> None:
        """Kills them all."""
        for number, (child, _) in list(self.running.items()):
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            logs.warning("Job failed: aborted: terminated", job=number)
            self._ended(number, "canceled")

    def _ended(self, number: int, how: str) -> None:
        del self.running[number]
        (SWITCHES / f"job-{number}.done").write_text(f"{how}\n")
        (SWITCHES / f"job-{number}.running").unlink(missing_ok=True)

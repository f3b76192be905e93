"""The output of a reconfigure: the words of its engine on the terminal and in its log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TextIO

START = """\
Starting Cinc Client, version 18.3.0
Patents: https://www.chef.io/patents
Infra Phase starting
Resolving cookbooks for run list: ["gitlab"]
Synchronizing cookbooks:
  - gitlab (0.0.1)
  - package (0.1.0)
  - registry (0.1.0)
Compiling cookbooks...
"""


class Output:
    """Prints, and writes the same into `/var/log/gitlab/reconfigure/<seconds>.log`, one file for each run.

    folder, prefix  another folder, and what the file's name begins with
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = _open_new(folder, prefix)
        self._updated = 0
        self._total = 0
        self._messages: dict[str, list[str]] = {}
        self._started = time.monotonic()

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.close()

    def line(self, text: str) -> None:
        """Prints a line on standard output and in the log."""
        print(text, flush=True)
        self.log(text)

    def log(self, text: str) -> None:
        """Writes a line into the log only."""
        self._log.write(f"{text}\n")
        self._log.flush()

    def resource(self, name: str, action: str, changed: bool) -> None:
        """Prints one resource of the run, changed or up to date."""
        self._total += 1
        self._updated += changed
        self.line(f"  * {name} action {action}{'' if changed else ' (up to date)'}")
        if changed:
            self.line(f"    - {action} {name}")

    def end(self) -> None:
        """Prints the lines after the last resource, and the report."""
        self.line("\nRunning handlers:\nRunning handlers complete")
        self.line(f"Infra Phase complete, {self._updated}/{self._total} resources updated in {self._seconds}")
        self._report()

    def fail(self, message: str) -> None:
        """Prints the failure on standard error and in the log; what else the engine prints, and the report.

        Source: omnibus-gitlab, package/libraries/handlers/gitlab.rb.
        """
        self.line("\nRunning handlers:")
        text = f"There was an error running gitlab-ctl reconfigure:\n\n{message}\n"
        sys.stdout.flush()
        print(text, file=sys.stderr, flush=True)
        self._log.write(text + "\n")
        self._report()
        self.line(
            f"Running handlers complete\nInfra Phase failed. {self._updated} resources updated in {self._seconds}"
        )

    @property
    def _seconds(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        return f"{minutes:02d} minutes {seconds:02d} seconds" if minutes else f"{seconds:02d} seconds"

    def add(self, kind: str, messages: Iterable[str]) -> None:
        """Keeps messages for the report. `kind`: removal, deprecation, warning or note."""
        self._messages.setdefault(kind, []).extend(messages)

    def _report(self) -> None:
        """Prints the messages by kind, on standard output, also after a failure.

        Source: omnibus-gitlab, package/libraries/helpers/logging_helper.rb.
        """
        for kind in ("removal", "deprecation", "warning", "note"):
            messages = self._messages.get(kind)
            if messages:
                self.line(f"\n{kind.capitalize()}s:")
                for message in messages:
                    self.line(message)
                self.line("")
                if kind in ("removal", "deprecation"):
                    self.line("Update the configuration in your gitlab.rb file or GITLAB_OMNIBUS_CONFIG environment.\n")


def _open_new(folder: Path, prefix: str) -> TextIO:
    """A new log, named after the current second; two runs within one second get two files."""
    second = int(time.time())
    while True:
        try:
            return (folder / f"{prefix}{second}.log").open("x")
        except FileExistsError:
            second += 1

"""`crond`: runs the jobs below /var/opt/gitlab/crond, as the package's own cron does.

It reads the files once, at its start: a reconfigure that changes one restarts it. A line is `MINUTE HOUR DAY MONTH WEEKDAY
USER COMMAND`, or `@every 30s USER COMMAND`. Sources: omnibus-gitlab, crond/recipes/enable.rb and resources/job.rb;
go-crond, parser.go; robfig/cron, parser.go.
"""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(r"\s*([^@\s]+(?:\s+\S+){4}|@every\s+\S+)\s+(\S+)\s+(.+)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@dataclass(frozen=True)
class Job:
    """One line of a file: when, as whom, and what."""

    when: str
    user: str
    command: str

    def after(self, moment: datetime.datetime) -> datetime.datetime:
        """The next time of the job. `moment`: the last one, or the start."""
        if self.when.startswith("@every"):
            parts = re.findall(r"([\d.]+)(h|ms|m|s)", self.when.split()[1])
            return moment + datetime.timedelta(seconds=sum(float(count) * _UNITS[unit] for count, unit in parts))
        found = moment.replace(second=0, microsecond=0) + datetime.timedelta(minutes=1)
        while not self._is_due(found):
            found += datetime.timedelta(minutes=1)
        return found

    def _is_due(self, moment: datetime.datetime) -> bool:
        minute, hour, day, month, weekday = self.when.split()
        days = (_matches(day, moment.day, 1, 31), _matches(weekday, moment.isoweekday() % 7, 0, 6))
        return (
            _matches(minute, moment.minute, 0, 59)
            and _matches(hour, moment.hour, 0, 23)
            and _matches(month, moment.month, 1, 12)
            and (all(days) if "*" in (day, weekday) else any(days))
        )


def parse(text: str) -> Iterator[Job]:
    """The jobs in a file."""
    for line in text.splitlines():
        found = None if line.startswith("#") else _LINE.fullmatch(line)
        if found:
            yield Job(*found.groups())


def _matches(field: str, value: int, lowest: int, highest: int) -> bool:
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        begin = lowest if first == "*" else int(first)
        end = int(last) if last else highest if first == "*" or step else begin
        if begin <= value <= end and (value - begin) % int(step or 1) == 0:
            return True
    return False


def main(arguments: list[str]) -> int:
    """`--include=FOLDER`: runs the jobs until the process is ended, and logs each on standard output."""
    folder = Path(arguments[0].removeprefix("--include="))
    now = datetime.datetime.now()
    jobs = [job for path in sorted(folder.iterdir()) for job in parse(path.read_text())]
    due = {job: job.after(now) for job in jobs}
    while True:
        coming = min(due.values(), default=None)
        time.sleep(3600 if coming is None else max(0.0, (coming - datetime.datetime.now()).total_seconds()))
        for job in [one for one, moment in due.items() if moment <= datetime.datetime.now()]:
            print(f"executing: {job.command}", flush=True)
            done = subprocess.run(["sh", "-c", job.command], stdin=subprocess.DEVNULL, user=job.user, check=False)
            print(f"exit code {done.returncode}: {job.command}", flush=True)
            due[job] = job.after(max(due[job], datetime.datetime.now()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

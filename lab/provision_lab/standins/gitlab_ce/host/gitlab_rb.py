"""gitlab.rb, evaluated by real Ruby: top-level names are known or refused, nested keys are free."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

Settings = dict[str, Any]

RUBY = "/opt/gitlab/embedded/bin/ruby"
EVALUATOR = Path(__file__).resolve().parent.parent / "rb/evaluate.rb"


class EvaluationError(Exception):
    """gitlab.rb cannot be evaluated: `kind` is Ruby's class of the error, `line` where in the file (or None)."""

    def __init__(self, kind: str, message: str, line: int | None) -> None:
        super().__init__(message)
        self.kind = kind
        self.line = line


def evaluate(path: Path, *, ruby: str = RUBY, evaluator: Path = EVALUATOR) -> Settings:
    """Everything that the file assigns. Raises EvaluationError."""
    reading, writing = os.pipe()
    with subprocess.Popen(
        [ruby, "--disable=gems", str(evaluator), str(path), str(writing)], pass_fds=[writing]
    ) as process:
        os.close(writing)
        with os.fdopen(reading) as answers:
            text = answers.read()
    if not text:
        raise EvaluationError("SystemExit", f"{path} ended Ruby with status {process.returncode}", None)
    answer = json.loads(text)
    if "error" in answer:
        error = answer["error"]
        raise EvaluationError(error["class"], error["message"], error["line"])
    settings: Settings = answer["settings"]
    return settings

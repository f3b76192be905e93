"""Which listeners the options choose."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from provision.report import listeners
from provision.report.html import HtmlReport
from provision.report.jsonlines import JsonLines
from provision.report.terminal import Terminal


def test_options_choose_the_listeners(tmp_path: Path) -> None:
    """stdout gets JSON lines or text for people; the page comes in addition to either."""
    streams = {"stdout": io.StringIO(), "stderr": io.StringIO()}
    page = tmp_path / "report.html"
    people = listeners(json=False, diff=True, verbose=1, stats=True, report=None, **streams)
    programs = listeners(json=True, diff=False, verbose=0, stats=False, report=page, **streams)
    assert [type(one) for one in people] == [Terminal]
    assert [type(one) for one in programs] == [JsonLines, HtmlReport]


@pytest.mark.parametrize(("options", "imported"), [(("--json",), []), ((), []), (("--stats",), ["rich"])])
def test_a_run_imports_only_the_libraries_of_its_report(
    options: tuple[str, ...], imported: list[str], script: Path
) -> None:
    """rich and Jinja take a tenth of a second. A result of one line, as of a run that changes nothing, needs neither."""
    code = (
        f"import sys, runpy; sys.argv = ['fake_runs.py', 'noop', '--pace', '0', *{options!r}];"
        f"runpy.run_path({str(script)!r}, run_name='__main__');"
        "print([name for name in ('rich', 'jinja2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.splitlines()[-1] == str(imported)

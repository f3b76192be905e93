"""CI lint: Ruby reads the YAML, as in GitLab, and the configuration is checked for GitLab's keywords.

Sources: docs.gitlab.com/ci/yaml and docs.gitlab.com/api/lint. `include` is not followed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

from ..layout import program_path
from .access import DEVELOPER, find_project
from .ci_config import GLOBAL, STAGES, ConfigError, merged
from .http import API, Context, Response, route

_READ = "require 'yaml'; require 'json'; puts JSON.dump(YAML.safe_load(STDIN.read, aliases: true))"
_DEFAULT = {"after_script", "artifacts", "before_script", "cache", "hooks", "id_tokens", "image", "interruptible"}
_DEFAULT |= {"retry", "services", "tags", "timeout"}
_JOB = _DEFAULT | {
    "allow_failure",
    "coverage",
    "dast_configuration",
    "dependencies",
    "environment",
    "except",
    "extends",
}
_JOB |= {
    "identity",
    "inherit",
    "manual_confirmation",
    "needs",
    "only",
    "pages",
    "parallel",
    "publish",
    "release",
    "rules",
}
_JOB |= {"resource_group", "run", "script", "secrets", "stage", "start_in", "trigger", "type", "variables", "when"}
_RULE = {"if", "changes", "exists", "when", "allow_failure", "variables", "needs", "interruptible", "auto_cancel"}
_RULE |= {"start_in", "auto_cancel"}


@route("POST", f"{API}/projects/:identity/ci/lint")
def lint(context: Context, identity: str) -> Response:
    """Whether a configuration is valid. The status is 200 in both cases."""
    find_project(context, identity, DEVELOPER)
    context.parameters.require("content")
    text = context.parameters.text("content") or ""
    errors, warnings = check_configuration(text)
    valid = not errors
    answer = {"valid": valid, "errors": errors, "warnings": warnings, "includes": []}
    return Response(200, answer | {"merged_yaml": text if valid else None})


def check_configuration(text: str) -> tuple[list[str], list[str]]:
    """The errors and warnings of a configuration."""
    try:
        tree = read_configuration(text)
        return problems_of(tree), list(_warnings(merged(tree)))
    except ConfigError as error:
        return [str(error)], []


def problems_of(tree: dict[str, Any]) -> list[str]:
    """What is wrong with a configuration. Raises ConfigError for an `extends` without end or target."""
    return list(_errors(merged(tree)))


def read_configuration(text: str) -> dict[str, Any]:
    """The tree of a configuration. Raises ConfigError."""
    path = {**os.environ, "PATH": program_path()}
    read = subprocess.run(["ruby", "-e", _READ], input=text, capture_output=True, text=True, check=False, env=path)
    if read.returncode != 0:
        found = re.search(r"\(<unknown>\): .*", read.stderr)
        raise ConfigError(found[0].partition(" (Psych")[0] if found else "Invalid configuration format")
    tree = json.loads(read.stdout)
    if not isinstance(tree, dict):
        raise ConfigError("Invalid configuration format")
    return tree


def _errors(tree: dict[str, Any]) -> Iterator[str]:
    yield from _variables("variables", tree.get("variables", {}))
    default = tree.get("default", {})
    if not isinstance(default, dict):
        yield "default config should be a hash"
    else:
        yield from _unknown("default", default, _DEFAULT)
        yield from _shapes("default", default)
    stages = tree.get("stages", STAGES)
    if not isinstance(stages, list) or not all(isinstance(one, str) for one in stages):
        yield "stages config should be an array of strings"
        stages = STAGES
    jobs = {name: one for name, one in tree.items() if name not in GLOBAL}
    visible = {name: one for name, one in jobs.items() if not name.startswith(".")}
    if not visible:
        yield "jobs config should contain at least one visible job"
    for name, one in jobs.items():
        if not isinstance(one, dict):
            yield f"jobs:{name} config should be a hash"
        elif name in visible:
            yield from _job(name, one, stages, jobs)


def _job(name: str, job: dict[str, Any], stages: list[str], jobs: dict[str, Any]) -> Iterator[str]:
    place = f"jobs:{name}"
    yield from _unknown(place, job, _JOB)
    yield from _shapes(place, job)
    yield from _variables(f"{place}:variables", job.get("variables", {}))
    if not {"script", "run", "trigger", "extends"} & job.keys():
        yield f"{place} config should implement the script:, run:, or trigger: keyword"
    if "rules" in job and {"only", "except"} & job.keys():
        yield f"{place} config key may not be used with `rules`: {', '.join(sorted({'only', 'except'} & job.keys()))}"
    stage = job.get("stage", "test")
    if stage not in [".pre", *stages, ".post"]:
        yield f"{name} job: chosen stage {stage} does not exist; available stages are {', '.join(['.pre', *stages, '.post'])}"
    for rule in job["rules"] if isinstance(job.get("rules"), list) else []:
        if not isinstance(rule, dict):
            yield f"{place}:rules:rule config should be a hash"
        else:
            yield from _unknown(f"{place}:rules:rule", rule, _RULE)
            if "if" in rule and not re.search(r"\$[A-Za-z_]\w*", str(rule["if"])):
                yield f"{place}:rules:rule if invalid expression syntax"
    for needed in job.get("needs", []):
        other = needed.get("job") if isinstance(needed, dict) else needed
        if other not in jobs:
            yield f"'{name}' job needs '{other}' job, but '{other}' does not exist in the pipeline"


def _shapes(place: str, table: dict[str, Any]) -> Iterator[str]:
    for key in ("script", "before_script", "after_script"):
        if key in table and not _lines(table[key]):
            yield f"{place}:{key} config should be a string or a nested array of strings up to 10 levels deep"
    for key in ("tags", "services", "rules", "needs"):
        if key in table and not isinstance(table[key], list):
            yield f"{place}:{key} config should be an array"
    for one in table.get("tags", []):
        if not isinstance(one, str):
            yield f"{place}:tags config should be an array of strings"
    images = [("image", table["image"])] if "image" in table else []
    services = table.get("services", [])
    for key, one in [*images, *(("services:service", one) for one in services if isinstance(services, list))]:
        if not (isinstance(one, str) and one) and not (isinstance(one, dict) and one.get("name")):
            yield f"{place}:{key} config should be a hash or a string"


def _lines(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_lines(one) for one in value)
    return isinstance(value, str)


def _variables(place: str, table: Any) -> Iterator[str]:
    plain = isinstance(table, dict) and all(isinstance(one, str | int | float | dict) for one in table.values())
    if not plain or any(isinstance(one, bool) for one in table.values()):
        yield f"{place} config should be a hash of key value pairs"


def _unknown(place: str, table: dict[str, Any], known: set[str]) -> Iterator[str]:
    if wrong := [key for key in table if key not in known]:
        yield f"{place} config contains unknown keys: {', '.join(wrong)}"


def _warnings(tree: dict[str, Any]) -> Iterator[str]:
    for name, job in tree.items():
        last = job["rules"][-1] if isinstance(job, dict) and isinstance(job.get("rules"), list) and job["rules"] else {}
        if isinstance(last, dict) and last.get("when") == "always" and "if" not in last:
            yield f"jobs:{name} may allow multiple pipelines to run for a single action due to `rules:when` clause with no `workflow:rules`"

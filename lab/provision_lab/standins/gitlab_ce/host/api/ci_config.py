"""A `.gitlab-ci.yml` as the jobs of one pipeline: `extends` and `default` merged, rules decided, image and services in full.

Sources: docs.gitlab.com/ci/yaml; GitLab's lib/gitlab/ci/config/extendable, lib/gitlab/ci/config/entry/{default,policy}.rb,
lib/gitlab/ci/build/{rules,policy}, lib/gitlab/ci/pipeline/expression. What the lab does not know raises ConfigError
instead of being left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

Table = dict[str, Any]
STAGES = ["build", "test", "deploy"]
GLOBAL = {"default", "image", "include", "services", "stages", "types", "variables", "workflow", "spec", "pages"}
GLOBAL |= {"before_script", "after_script", "cache"}
_INHERITED = (
    "after_script",
    "before_script",
    "cache",
    "image",
    "interruptible",
    "retry",
    "services",
    "tags",
    "timeout",
)
_UNKNOWN = ("trigger", "parallel", "retry", "run", "environment", "resource_group", "inherit")
_WHEN = ("on_success", "on_failure", "always", "manual", "never")
_DEPTH = 10  # Source: MAX_NESTING_LEVELS of extends


class ConfigError(Exception):
    """A configuration that makes no pipeline."""


def merged(tree: Table) -> Table:
    """The tree with `extends` of all jobs resolved. Raises ConfigError."""
    jobs = {name: one for name, one in tree.items() if name not in GLOBAL and isinstance(one, dict)}
    return {name: _extended(name, jobs, []) if name in jobs else one for name, one in tree.items()}


def _extended(name: str, jobs: Mapping[str, Table], below: list[str]) -> Table:
    if name in below:
        raise ConfigError(f"{below[0]}: circular dependency detected in `extends`")
    if len(below) > _DEPTH:
        raise ConfigError(f"{below[0]}: nesting too deep in `extends`")
    job = jobs[name]
    bases = job.get("extends", [])
    result: Table = {}
    for base in [bases] if isinstance(bases, str) else bases:
        if base not in jobs:
            raise ConfigError(f"{name}: unknown keys in `extends` ({base})")
        result = _deep(result, _extended(base, jobs, [*below, name]))
    return {key: value for key, value in _deep(result, job).items() if key != "extends"}


def _deep(below: Table, above: Table) -> Table:
    """Tables merge, all else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _deep(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def variables_of(table: Mapping[str, Any]) -> dict[str, str]:
    """The variables of a `variables` table; those with a description have their value in `value`."""
    plain = {name: one.get("value", "") if isinstance(one, dict) else one for name, one in table.items()}
    return {name: "" if one is None else str(one) for name, one in plain.items()}


def jobs_of(tree: Table, ref: str, *, tag: bool, known: Mapping[str, str]) -> list[Table]:
    """The jobs that a pipeline for this ref has, by stage. Raises ConfigError; no jobs are possible.

    known  the variables that rules may name, without those of the file
    """
    if "include" in tree:
        raise ConfigError("include: the lab's GitLab does not follow `include`")
    tree = merged(tree)
    shared = variables_of(tree.get("variables", {}))
    if not _starts(tree.get("workflow", {}), {**shared, **known}):
        return []
    stages = [".pre", *tree.get("stages", STAGES), ".post"]
    found = []
    for name, one in tree.items():
        if name in GLOBAL or name.startswith("."):
            continue
        job = {key: tree[key] for key in _INHERITED if key in tree} | tree.get("default", {}) | one
        if odd := [key for key in _UNKNOWN if key in job]:
            raise ConfigError(f"jobs:{name}: the lab's GitLab does not know `{odd[0]}`")
        own = shared | variables_of(job.get("variables", {}))
        decided = _decided(name, job, ref, tag, {**own, **known, "CI_JOB_NAME": name})
        if decided is not None:
            found.append(_job(name, job, own | decided.pop("variables"), stages) | decided)
    found.sort(key=lambda one: int(one["stage_idx"]))  # those of a stage stay in the order of the file
    _check_needs(found)
    return found


def _job(name: str, job: Table, variables: dict[str, str], stages: list[str]) -> Table:
    stage = job.get("stage", "test")
    needs = [one["job"] if isinstance(one, dict) else one for one in job["needs"]] if "needs" in job else None
    return {
        "name": name,
        "stage": stage,
        "stage_idx": stages.index(stage),
        "tag_list": sorted(set(job.get("tags", []))),
        "image": _image(job.get("image")),
        "services": [_image(one) for one in job.get("services", [])],
        "script": [*_lines(job.get("before_script", [])), *_lines(job.get("script", []))],
        "after_script": _lines(job.get("after_script", [])),
        "variables": variables,
        "coverage": job.get("coverage"),
        "timeout": seconds(job["timeout"]) if "timeout" in job else None,
        "interruptible": bool(job.get("interruptible", False)),
        "needs": needs,
    }


def _check_needs(jobs: list[Table]) -> None:
    names = {one["name"] for one in jobs}
    for job in jobs:
        for needed in job["needs"] or []:
            if needed not in names:
                raise ConfigError(
                    f"'{job['name']}' job needs '{needed}' job, but '{needed}' does not exist in the pipeline"
                )


def _image(value: Any) -> Table | None:
    if value is None:
        return None
    return {"name": value} if isinstance(value, str) else dict(value)


def _lines(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [line for one in value for line in _lines(one)]


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds(text: str | int) -> int:
    """A duration such as `1h 30m` or `90 minutes`; a number is in seconds."""
    parts = re.findall(r"(\d+)\s*([a-z]*)", str(text).lower())
    return sum(int(number) * _UNITS[(unit or "s")[0]] for number, unit in parts)


def _starts(workflow: Table, values: Mapping[str, str]) -> bool:
    """Whether workflow:rules allow a pipeline."""
    if "rules" not in workflow:
        return True
    rule = next((one for one in workflow["rules"] if _matches("workflow", one, values)), None)
    return rule is not None and rule.get("when", "always") != "never"


def _decided(name: str, job: Table, ref: str, tag: bool, values: Mapping[str, str]) -> Table | None:
    """`when`, `allow_failure` and more variables of a job that is part of the pipeline; None for one that is not."""
    when, allowed, more = job.get("when", "on_success"), job.get("allow_failure"), dict[str, str]()
    if "rules" in job:
        rule = next((one for one in job["rules"] if _matches(name, one, values)), None)
        if rule is None:
            return None
        when, more = rule.get("when", when), variables_of(rule.get("variables", {}))
        allowed = rule.get("allow_failure", bool(allowed))  # a manual job of a rule blocks
    elif not _policy(job.get("only", {"refs": ["branches", "tags"]}), ref, tag, values) or (
        "except" in job and _policy(job["except"], ref, tag, values)
    ):
        return None
    if when not in _WHEN:
        raise ConfigError(f"jobs:{name}: the lab's GitLab does not know `when: {when}`")
    if isinstance(allowed, dict):
        raise ConfigError(f"jobs:{name}: the lab's GitLab does not know `allow_failure: exit_codes`")
    if allowed is None:
        allowed = when == "manual"
    return None if when == "never" else {"when": when, "allow_failure": allowed, "variables": more}


def _matches(name: str, rule: Table, values: Mapping[str, str]) -> bool:
    for key in ("changes", "exists", "needs"):
        if key in rule:
            raise ConfigError(f"{name}: the lab's GitLab does not know `rules:{key}`")
    return "if" not in rule or Expression(str(rule["if"]), values).value()


def _policy(policy: Any, ref: str, tag: bool, values: Mapping[str, str]) -> bool:
    """Whether `only` or `except` names this ref."""
    if isinstance(policy, str | list):
        policy = {"refs": [policy] if isinstance(policy, str) else policy}
    if odd := set(policy) - {"refs", "variables"}:
        raise ConfigError(f"the lab's GitLab does not know `only:{min(odd)}`")
    refs, wanted = policy.get("refs"), policy.get("variables")
    named = refs is None or any(_names(str(one), ref, tag, values["CI_PIPELINE_SOURCE"]) for one in refs)
    return named and (wanted is None or any(Expression(one, values).value() for one in wanted))


_SOURCES = {"pushes": "push", "web": "web", "api": "api", "schedules": "schedule", "triggers": "trigger"}


def _names(one: str, ref: str, tag: bool, source: str) -> bool:
    if one in ("branches", "tags"):
        return tag is (one == "tags")
    if one in _SOURCES:
        return source == _SOURCES[one]
    if one.startswith("/"):
        return _regex(one).search(ref) is not None
    return one == ref


def _regex(text: str) -> re.Pattern[str]:
    body, _, flags = text[1:].rpartition("/")
    return re.compile(body, re.IGNORECASE if "i" in flags else 0)


_TOKEN = re.compile(r"\s*(\$\w+|\"[^\"]*\"|'[^']*'|/(?:\\/|[^/])+/[a-z]*|==|!=|=~|!~|&&|\|\||\(|\)|null\b)")


class Expression:
    """The `if` of a rule: variables, texts, patterns, comparisons, && before ||, parentheses."""

    def __init__(self, text: str, values: Mapping[str, str]) -> None:
        self.text, self.values = text, values
        self.tokens = list(self._read())

    def value(self) -> bool:
        """Whether it is true. Raises ConfigError."""
        found = self._either()
        if self.tokens:
            raise self._wrong()
        return bool(found)

    def _read(self) -> Iterator[str]:
        place, text = 0, self.text.strip()
        while place < len(text):
            found = _TOKEN.match(text, place)
            if found is None:
                raise self._wrong()
            yield found[1]
            place = found.end()

    def _wrong(self) -> ConfigError:
        return ConfigError(f"rules:rule if invalid expression syntax: {self.text}")

    def _next(self) -> str:
        if not self.tokens:
            raise self._wrong()
        return self.tokens.pop(0)

    def _is(self, *wanted: str) -> bool:
        return bool(self.tokens) and self.tokens[0] in wanted

    def _either(self) -> str | bool | None:
        left = self._both()
        while self._is("||"):
            self._next()
            right = self._both()
            left = left or right
        return left

    def _both(self) -> str | bool | None:
        left = self._compared()
        while self._is("&&"):
            self._next()
            right = self._compared()
            left = left and right
        return left

    def _compared(self) -> str | bool | None:
        left = self._one()
        if not self._is("==", "!=", "=~", "!~"):
            return left
        operator, token = self._next(), self._next()
        if operator in ("==", "!="):
            return (left == self._of(token)) is (operator == "==")
        pattern = token if token.startswith("/") else str(self._of(token) or "")
        if not pattern.startswith("/"):
            raise self._wrong()
        return (_regex(pattern).search(str(left or "")) is not None) is (operator == "=~")

    def _one(self) -> str | bool | None:
        token = self._next()
        if token != "(":
            return self._of(token)
        inner = self._either()
        if self._next() != ")":
            raise self._wrong()
        return inner

    def _of(self, token: str) -> str | None:
        if token.startswith("$"):
            return self.values.get(token[1:])
        if token[0] in "\"'":
            return token[1:-1]
        if token == "null":
            return None
        raise self._wrong()

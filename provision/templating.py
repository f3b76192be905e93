"""Rendering Jinja templates: those in the user's `templates/` come before the shipped ones.

A value that a template uses and that is not given is an error (StrictUndefined). Values in templates that end in
`.html.j2` are escaped for HTML; in all others they are inserted unchanged.

`shipped` finds the folders that ship with the program: beside the package in a checkout, inside it in a wheel.
"""

from __future__ import annotations

import json
import re
import shlex
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provision.errors import UsageError

if TYPE_CHECKING:
    from jinja2 import Environment


_folders: list[Path] = []
_NAME = re.compile(r"\{\{ (\w+) \}\}")
_PLAIN = re.compile(r"[A-Za-z$/_][^\x00-\x1f]*")
_UNPRINTABLE = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff]")  # in YAML's sense
_UNSAFE = re.compile(rf": | #|[:\s]$|{_UNPRINTABLE.pattern}")
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null"})


def use_templates_of(folders: list[Path]) -> None:
    """Sets the user's template folders. They are searched in order, before the shipped one."""
    _folders[:] = folders
    environment.cache_clear()
    _plain.cache_clear()


@cache
def environment() -> Environment:
    """The Jinja environment over all template folders."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    jinja = Environment(
        loader=FileSystemLoader([*_folders, shipped("templates")]),
        undefined=StrictUndefined,
        autoescape=lambda name: bool(name and name.endswith(".html.j2")),
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {"shell": lambda text: shlex.quote(str(text)), "yaml": yaml_text}
    return jinja


def names(folder: str, ending: str) -> list[str]:
    """The names of the templates in `folder` that end in `ending`, the user's and the shipped ones."""
    folders = [*_folders, shipped("templates")]
    return sorted({path.name for one in folders for path in (one / folder).glob(f"*{ending}")})


def source(name: str) -> str:
    """The unrendered text of a template; "" if it does not exist."""
    folders = [*_folders, shipped("templates")]
    return next((path.read_text("utf-8") for folder in folders if (path := folder / name).is_file()), "")


def yaml_text(text: object) -> str:
    """A YAML scalar that reads back as this text: plain where that is safe, otherwise in double quotes.

    Templates use it as the filter `yaml`. The filter `shell` quotes for a shell.
    """
    plain = str(text)
    safe = _PLAIN.fullmatch(plain) and not _UNSAFE.search(plain) and plain.lower() not in _WORDS
    quoted = json.dumps(plain, ensure_ascii=False)
    return plain if safe else _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


@cache
def _plain(name: str) -> str | None:
    """The text of a template that uses only `{{ name }}`, so that Jinja need not be imported. None for others."""
    path = next((one for folder in [*_folders, shipped("templates")] if (one := folder / name).is_file()), None)
    text = path.read_text("utf-8") if path and not name.endswith(".html.j2") else "{%"
    rest = _NAME.sub("", text)
    return None if any(sign in rest for sign in ("{{", "{%", "{#", "\r")) else text


def render(name: str, /, **values: Any) -> str:
    """Renders a template. Raises UsageError that names the template and its error."""
    text = _plain(name)
    if text is not None and values.keys() >= set(_NAME.findall(text)):
        return _NAME.sub(lambda found: str(values[found[1]]), text)
    from jinja2 import TemplateError

    try:
        return environment().get_template(name).render(**values)
    except TemplateError as error:
        raise UsageError(
            f"templates/{name}: {type(error).__name__}: {error}",
            hint="fix the template, or remove your copy to use the shipped one",
        ) from error


def names_in(name: str) -> set[str]:
    """The names of the values that a template uses. Raises UsageError as `render` does."""
    from jinja2 import TemplateError, meta

    jinja = environment()
    try:
        source = jinja.loader.get_source(jinja, name)[0] if jinja.loader else ""
        return meta.find_undeclared_variables(jinja.parse(source))
    except TemplateError as error:
        raise UsageError(f"templates/{name}: {type(error).__name__}: {error}", hint="fix the template") from error


_PACKAGE = Path(__file__).parent


def shipped(folder: str) -> Path:
    """The shipped folder `playbooks`, `templates` or `inventories`."""
    inside = _PACKAGE / "_data" / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder

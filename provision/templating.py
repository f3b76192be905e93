"""Files that are rendered whole: Jinja templates, the user's `templates/` first.

A name that is not given, or a misspelt one, is an error (StrictUndefined). Templates that end in `.html.j2`
are escaped for HTML, all others are taken as they are.
"""

from __future__ import annotations

import json
import re
import shlex
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provision.errors import UsageError
from provision.places import shipped

if TYPE_CHECKING:
    from jinja2 import Environment

_folders: list[Path] = []
_NAME = re.compile(r"\{\{ (\w+) \}\}")
_PLAIN = re.compile(r"[A-Za-z$/_][^\x00-\x1f]*")
_UNPRINTABLE = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff]")  # in YAML's sense
_UNSAFE = re.compile(rf": | #|[:\s]$|{_UNPRINTABLE.pattern}")
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null"})


def use_templates_of(folders: list[Path]) -> None:
    """Puts users' template folders before the shipped one; first found wins."""
    _folders[:] = folders
    environment.cache_clear()
    _plain.cache_clear()


@cache
def environment() -> Environment:
    """The Jinja environment over all template folders."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader([*_folders, shipped("templates")]),
        undefined=StrictUndefined,
        autoescape=lambda name: bool(name and name.endswith(".html.j2")),
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"shell": lambda text: shlex.quote(str(text)), "yaml": yaml_text}
    return made


def names(folder: str, ending: str) -> list[str]:
    """The templates of a folder whose names end so: the users' and the shipped ones."""
    folders = [*_folders, shipped("templates")]
    return sorted({path.name for one in folders for path in (one / folder).glob(f"*{ending}")})


def source(name: str) -> str:
    """A template's own text; "" where there is none of that name."""
    folders = [*_folders, shipped("templates")]
    return next((path.read_text("utf-8") for folder in folders if (path := folder / name).is_file()), "")


def yaml_text(text: object) -> str:
    """A text as a YAML scalar that is read back as this text: plain where that is safe, else in double quotes.

    Filter `yaml` in templates; `shell` quotes for a shell.
    """
    plain = str(text)
    safe = _PLAIN.fullmatch(plain) and not _UNSAFE.search(plain) and plain.lower() not in _WORDS
    quoted = json.dumps(plain, ensure_ascii=False)
    return plain if safe else _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


@cache
def _plain(name: str) -> str | None:
    """The template's text where it holds nothing but `{{ name }}`: Jinja's start is spared then. None otherwise."""
    path = next((one for folder in [*_folders, shipped("templates")] if (one := folder / name).is_file()), None)
    text = path.read_text("utf-8") if path and not name.endswith(".html.j2") else "{%"
    rest = _NAME.sub("", text)
    return None if any(sign in rest for sign in ("{{", "{%", "{#", "\r")) else text


def render(name: str, /, **values: Any) -> str:
    """A template's text. Raises UsageError naming the template and what is wrong in it."""
    text = _plain(name)
    if text is not None and values.keys() >= set(_NAME.findall(text)):
        return _NAME.sub(lambda found: str(values[found[1]]), text)
    from jinja2 import TemplateError

    try:
        return environment().get_template(name).render(**values)
    except TemplateError as error:
        raise UsageError(
            f"templates/{name}: {type(error).__name__}: {error}",
            hint="mend the template, or remove yours to use the shipped one",
        ) from error


def names_in(name: str) -> set[str]:
    """The values that a template asks for. Raises UsageError likewise."""
    from jinja2 import TemplateError, meta

    jinja = environment()
    try:
        source = jinja.loader.get_source(jinja, name)[0] if jinja.loader else ""
        return meta.find_undeclared_variables(jinja.parse(source))
    except TemplateError as error:
        raise UsageError(f"templates/{name}: {type(error).__name__}: {error}", hint="mend the template") from error

"""What a pipeline is made of. It is rendered only where it is needed: a run that changes nothing spares Jinja's start."""

from __future__ import annotations

import json
import re
from functools import cache

from provision.errors import UsageError
from provision.templating import render, source
from provision.values import dataclass

_USES_OTHERS = re.compile(r"\{%-?\s*(?:include|extends|import|from)\b")


@dataclass(frozen=True)
class Recipe:
    """A template (`pipelines/registry.gitlab-ci.yml.j2`) with its values as JSON; `place` is where the inventory asks for it."""

    place: str
    template: str
    values: str

    @property
    def text(self) -> str:
        """The file. Raises UsageError for what the template needs and is not given, and for a broken template."""
        return _rendered(self, source(self.template))

    @property
    def mark(self) -> str:
        """What tells it from another one, without rendering it where that can be."""
        template = source(self.template)
        plain = f"{template}\0{self.values}"
        try:
            return self.text if _USES_OTHERS.search(template) else plain
        except UsageError:  # told once it is to be committed
            return plain


@cache
def _rendered(recipe: Recipe, template: str) -> str:
    values = json.loads(recipe.values)
    try:
        return render(recipe.template, **values)
    except UsageError as error:
        missing = re.search(r"UndefinedError: '(\w+)' is undefined", error.text)
        if missing and missing[1] in template:
            raise UsageError(
                f"{recipe.place}.{missing[1]} is missing: the template {recipe.template} needs it",
                hint="docs/projects.md tells what each shipped template takes",
            ) from error
        raise

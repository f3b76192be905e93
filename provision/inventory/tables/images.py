"""[[images]]: images to build and push; [prune]: images to remove."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from provision.image_name import check_hub_push, check_tag, parse_name
from provision.inventory.secrets import SecretSource
from provision.inventory.tables.base import InvalidValue, Table, plain_data
from provision.inventory.tables.projects import RELEASED_TAG, Project
from provision.inventory.tables.registry import Registry
from provision.url import Url, UrlField


class RegistryLogin(Table):
    """The login to an image's registry."""

    username: str = Field(min_length=1)
    """The name of a user, a deploy token or a robot account."""
    password: SecretSource
    """That user's password or token (a secret)."""


class Image(Table, name="images", occurs="array"):
    """One image: built from a local folder on a host with Docker, tagged, and pushed."""

    name: str
    """GROUP/PROJECT in the own registry, HOST[:PORT]/NAME in another one, docker.io/USER/NAME on Docker Hub; no tag."""
    tags: tuple[str, ...] = ("latest",)
    """Its tags; each is pushed."""
    context: Path
    """The build context, a local folder. Its .dockerignore is used."""
    dockerfile: str | None = None
    """The Dockerfile's path inside the context. Default: Dockerfile."""
    template: Literal["python-web", "go", "static-nginx", "static-apache", "wsgi"] | str | None = None
    """Instead of a Dockerfile: templates/dockerfiles/NAME.Dockerfile.j2, your own or a shipped one."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Values for the template; its first lines list the names."""
    build_args: dict[str, Any] = Field(default_factory=dict)
    """Values for the Dockerfile's ARGs; they are visible in the image's history, so they must not be secret."""
    target: str | None = None
    """The stage to build. Default: the last."""
    host: str | None = None
    """The host that builds it. Default: the first of the group runners."""
    login: RegistryLogin | None = None
    """The login to push with. Default for your registry: registry.login."""
    token_server: Annotated[Url, UrlField("https://gitlab.example.org")] | None = None
    """The server to which the image's registry sends clients for tokens. Default: a known one, or the registry's own host."""
    push: bool = True
    """false: the image stays on the host that builds it."""

    @classmethod
    def check_all(cls, tables: Mapping[str | int, Self]) -> None:
        """Checks that no two images have the same name and tag."""
        known: dict[str, str | int] = {}
        for place, one in tables.items():
            for number, tag in enumerate(one.tags):
                if (first := known.setdefault(f"{one.name}:{tag}", place)) != place:
                    text = f"images[{first}] is {one.name}:{tag}, too: names or tags must differ"
                    raise InvalidValue(text, place, "tags", number)

    @classmethod
    def check_among(cls, settings: Any) -> None:
        """Checks that no image pushes a name and tag that the pipeline of a project releases."""
        if Project not in settings:
            return
        registry = settings.get(Registry) if Registry in settings else None
        own = registry.external_url.authority if registry else ""
        released = {
            name.at(own).name: path
            for path, one in settings.named(Project).items()
            if one.pipeline and (name := one.pipeline.released(path, one.variables))
        }
        for place, one in enumerate(settings.all(cls)):
            project = released.get(parse_name(one.name).at(own).name)
            if one.push and project and RELEASED_TAG in one.tags:
                text = (
                    f'{one.name}:{RELEASED_TAG} is released by projects."{project}".pipeline: a tag has one writer; remove the '
                    "tag or the image here, or give it another name (GROUP/PROJECT/NAME is in the same project)"
                )
                raise InvalidValue(text, place, "tags", one.tags.index(RELEASED_TAG))

    @field_validator("name")
    @classmethod
    def _name(cls, text: str) -> str:
        parse_name(text)
        return text

    @field_validator("tags")
    @classmethod
    def _tags(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        if not tags:
            raise ValueError("expected at least one tag")
        for place, tag in enumerate(tags):
            try:
                check_tag(tag)
            except ValueError as error:
                raise InvalidValue(str(error), place) from None
            if tag in tags[:place]:
                raise InvalidValue(f"{tag!r} is listed twice", place)
        return tags

    @field_validator("dockerfile")
    @classmethod
    def _dockerfile(cls, text: str | None) -> str | None:
        if text is not None and (not text or text.startswith(("/", "-")) or ".." in PurePosixPath(text).parts):
            raise ValueError(f'expected a path inside the context, such as "docker/Dockerfile", got {text!r}')
        return text

    @field_validator("template")
    @classmethod
    def _template(cls, text: str | None) -> str | None:
        if text is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text):
            raise ValueError(f'expected a template\'s name, such as "python-web", got {text!r}')
        return text

    @field_validator("target")
    @classmethod
    def _target(cls, text: str | None) -> str | None:
        if text is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text):
            raise ValueError(f"expected the name of a stage, got {text!r}")
        return text

    @field_validator("options")
    @classmethod
    def _options(cls, options: dict[str, Any]) -> dict[str, Any]:
        plain_data(options)
        _refuse_secrets(options, "a Dockerfile")
        return options

    @field_validator("build_args")
    @classmethod
    def _build_args(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        _refuse_secrets(arguments, "the image's history")
        for name, value in arguments.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise InvalidValue(f"expected the name of an ARG, got {name!r}", name)
            if not isinstance(value, str):
                raise InvalidValue(f"expected a string, got {value!r}", name)
            if re.search(r"://[^/@\s]*:[^/@\s]+@", value):
                text = "a URL with a password is not allowed here: it would be readable in the image's history"
                raise InvalidValue(text, name)
        return arguments

    @model_validator(mode="after")
    def _fits(self) -> "Image":
        if self.template is not None and self.dockerfile is not None:
            raise InvalidValue("expected dockerfile or template, not both", "template")
        if self.options and self.template is None:
            raise InvalidValue("options need a template", "options")
        if self.push:
            try:
                check_hub_push(parse_name(self.name))
            except ValueError as error:
                raise InvalidValue(str(error), "name") from None
        return self


def _refuse_secrets(table: dict[str, Any], where: str) -> None:
    for name, value in table.items():
        if isinstance(value, SecretSource):
            raise InvalidValue(f"a secret is not allowed here: it would be readable in {where}", name)


class Prune(Table):
    """Which stopped containers and unused images are removed."""

    days: int = Field(default=14, ge=0)
    """Those that are older than this many days."""
    timer: bool = False
    """true: the hosts remove them every night."""

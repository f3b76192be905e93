"""`gitlab-runner register`: verifies or registers, asks for missing values, appends an entry and rewrites the file."""

from __future__ import annotations

import datetime
import socket
import sys
from typing import Any, NoReturn

from . import api, config, logs
from .flags import EXECUTORS, Given, flags, parse

Table = dict[str, Any]
_RESERVED = "--locked, --access-level, --run-untagged, --maximum-timeout, --paused, --tag-list, and --maintenance-note"
_SEE = "https://docs.gitlab.com/ci/runners/new_creation_workflow/"
_WITH_DOCKER = ("docker", "docker+machine", "docker-autoscaler")


def run(words: list[str]) -> None:
    """Runs the command. Raises Exit when it fails."""
    logs.mode()
    given = parse(words, flags())
    if given.text("access-level") not in ("", "not_protected", "ref_protected"):
        logs.panic("Given access-level is not valid. Refer to gitlab-runner register -h for the correct options.")
    Registration(given).run()


class Registration:
    """The registration of one entry."""

    def __init__(self, given: Given) -> None:
        self.given = given
        self.path = given.text("config") or config.default_path()
        self.entry: Table = {}
        self.registered = False
        for flag in flags():
            name = flag.names[0].lstrip("-")
            if flag.key and name in given.values:
                _put(self.entry, flag.key.split("."), given.values[name])
        self.entry.setdefault("name", socket.gethostname())
        if template := given.text("template-config"):
            self._merge(template)

    def run(self) -> None:
        """Registers in the order of the real program, so that the last message shows where it stopped."""
        try:
            data = config.read(self.path)
        except config.ConfigError as error:
            logs.panic(str(error))
        self.system_id = config.system_id(self.path)
        self._ask_runner(data)
        try:
            self._ask_executor()
        except logs.Exit as end:
            if end.panic and self.registered and not self.given.flag("leave-runner"):
                api.unregister(self.server, self.token, self.system_id)
            raise
        data["runners"] = [*data.get("runners", []), self.entry]
        config.write(self.path, data)
        if data["concurrent"] < self.entry.get("limit", 0):
            logs.warning(
                f"The specified runner job concurrency limit ({self.entry['limit']}) is larger than current global "
                f"concurrency limit ({data['concurrent']}). The global concurrent limit will not be increased and "
                "takes precedence."
            )
        logs.info(
            "Runner registered successfully. Feel free to start it, but if it's running already the config should be "
            "automatically reloaded!"
        )
        logs.info("")
        logs.info(f'Configuration (with the authentication token) was saved in "{self.path}"')

    @property
    def token(self) -> str:
        """The current token."""
        return str(self.entry.get("token", ""))

    @property
    def server(self) -> api.Server:
        """The server that is asked."""
        return server_of(self.entry, self.path)

    def _merge(self, template: str) -> None:
        logs.info(f'Merging configuration from template file "{template}"')
        try:
            runners = config.read(template).get("runners", [])
        except config.ConfigError as error:
            _no_template(f"couldn't load configuration template file: {error}")
        if len(runners) != 1:
            _no_template("configuration template must contain exactly one [[runners]] entry")
        _fill(self.entry, {key: value for key, value in runners[0].items() if key != "token"})

    def _ask_runner(self, data: Table) -> None:
        self.entry["url"] = self._ask("url", "Enter the GitLab instance URL (for example, https://gitlab.com/):")
        if self.token and not api.is_created(self.token):
            logs.info("Token specified trying to verify runner...")
            logs.warning("If you want to register use the '-r' instead of '-t'.")
            if api.verify(self.server, self.token, self.system_id) is None:
                logs.panic("Failed to verify the runner. You may be having network problems.")
            return
        legacy = not self.token
        if legacy:
            self.entry["token"] = self._ask("registration-token", "Enter the registration token:")
        if not api.is_created(self.token):
            self.entry["name"] = self._ask("name", "Enter a description for the runner:")
            self._register()
            return
        if any(entry.get("token") == self.token for entry in data.get("runners", [])):
            logs.warning("A runner with this system ID and token has already been registered.")
        self._refuse_reserved(legacy=legacy)
        answer = api.verify(self.server, self.token, self.system_id)
        if answer is None or not answer.body.get("id"):
            logs.panic("Failed to verify the runner.")
        self._accept(answer)
        self.entry["name"] = self._ask(
            "name", "Enter a name for the runner. This is stored only in the local config.toml file:"
        )

    def _refuse_reserved(self, *, legacy: bool) -> None:
        names = ("access-level", "run-untagged", "maximum-timeout", "paused", "tag-list", "maintenance-note")
        if self.given.flag("locked", default=True) and not any(self.given.values.get(name) for name in names):
            return
        if legacy:
            logs.warning(
                "You have specified an authentication token in the legacy parameter --registration-token. This has "
                "triggered the 'legacy-compatible registration process' which has resulted in the following command "
                f"line parameters being ignored: {_RESERVED}. For more information, see "
                f"{_SEE}#changes-to-the-gitlab-runner-register-command-syntax"
                "These parameters and the legacy-compatible registration process will be removed in a future GitLab "
                "Runner release. "
            )
            return
        logs.fatal(
            "Runner configuration other than name and executor configuration is reserved (specifically "
            f"{_RESERVED}) and cannot be specified when registering with a runner authentication token. This "
            "configuration is specified on the GitLab server. Please try again without specifying any of those "
            f"arguments. For more information, see {_SEE}#changes-to-the-gitlab-runner-register-command-syntax"
        )

    def _register(self) -> None:
        given = self.given
        tags = self._ask("tag-list", "Enter tags for the runner (comma-separated):", empty=True)
        note = self._ask("maintenance-note", "Enter optional maintenance note for the runner:", empty=True)
        logs.warning(
            "Support for registration tokens and runner parameters in the 'register' command has been deprecated in "
            "GitLab Runner 15.6 and will be replaced with support for authentication tokens. For more information, "
            f"see {_SEE}"
        )
        wanted: Table = {"description": self.entry["name"], "maintenance_note": note, "tag_list": tags}
        wanted |= {"locked": given.flag("locked", default=True), "run_untagged": given.flag("run-untagged") or not tags}
        wanted |= {"access_level": given.text("access-level"), "maximum_timeout": given.number("maximum-timeout")}
        sent = {key: value for key, value in wanted.items() if value not in ("", 0) or isinstance(value, bool)}
        answer = api.register(self.server, self.token, sent | {"paused": given.flag("paused")})
        if answer is None:
            logs.panic("Failed to register the runner.")
        self.entry["token"] = answer.body["token"]
        self._accept(answer)

    def _accept(self, answer: api.Answer) -> None:
        expires = answer.body.get("token_expires_at")
        self.entry["id"] = answer.body["id"]
        self.entry["token_obtained_at"] = datetime.datetime.now(datetime.UTC)
        self.entry["token_expires_at"] = datetime.datetime.fromisoformat(expires) if expires else config.NEVER
        self.registered = True

    def _ask_executor(self) -> None:
        names = ", ".join(EXECUTORS)
        while True:
            self.entry["executor"] = self._ask("executor", f"Enter an executor: {names}:", empty=True)
            if self.entry["executor"] in EXECUTORS:
                break
            if self.given.flag("non-interactive"):
                logs.panic("Invalid executor specified")
            logs.error("Invalid executor specified")
        docker = self.entry.pop("docker", {})
        if self.entry["executor"] not in _WITH_DOCKER:
            return
        self.entry["docker"] = docker
        docker["image"] = self._ask("docker-image", "Enter the default Docker image (for example, ruby:3.3):")
        volumes = docker.setdefault("volumes", [])
        if not docker.get("disable_cache") and not any(one.split(":")[-1] == "/cache" for one in volumes):
            volumes.append("/cache")

    def _ask(self, name: str, prompt: str, *, empty: bool = False) -> str:
        """The value from flags, environment or template, or typed text."""
        below = {"docker-image": self.entry.get("docker", {}).get("image", "")}
        known = str(below.get(name) or self.entry.get(name) or self.given.text(name))
        if self.given.flag("non-interactive"):
            if not known and not empty:
                logs.panic(f"The {name} needs to be entered")
            return known
        while True:
            sys.stderr.write(f"{prompt}\n" + (f"[{known}]: " if known else ""))
            sys.stderr.flush()
            typed = sys.stdin.readline()
            if not typed:
                logs.panic("Unexpected EOF. Did you mean to use --non-interactive?")
            if typed.strip() or known or empty:
                return typed.strip() or known


def server_of(entry: Table, path: str) -> api.Server:
    """The server of an entry, with the certificate authorities that it trusts."""
    certs = path.rpartition("/")[0] + "/certs"
    return api.Server(str(entry.get("url", "")), str(entry.get("tls-ca-file", "")), certs)


def _no_template(why: str) -> NoReturn:
    logs.fatal(f'Could not handle configuration merging from template file error="{why}"')


def _put(table: Table, keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        table = table.setdefault(key, {})
    table[keys[-1]] = value


def _fill(have: Table, more: Table) -> None:
    """Fills empty values from another table, recursively. Zero values count as empty."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(have.setdefault(key, {}), dict):
            _fill(have[key], value)
        elif not have.get(key):
            have[key] = value

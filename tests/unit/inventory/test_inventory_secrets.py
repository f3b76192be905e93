"""Secrets: found in every table, fetched late and once, never shown; a clear message when that fails."""

from __future__ import annotations

import pickle
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from provision.engine.catalogue import load_inventory as load
from provision.errors import InventoryError
from provision.inventory import Inventory, SecretSource, resolve, settings_dict
from provision.inventory.tables.docker import Docker
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.host import Ssh
from provision.inventory.tables.runners import Runner
from provision.secret import Secret, is_secret_name

Estate = Callable[..., Inventory]
RUNNER = "[[runners]]\nname='r'\nexecutor='shell'\n"


PROMPT = "provision.inventory.secrets.typed_on_terminal"


@pytest.fixture(autouse=True)
def _no_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provision.inventory.secrets._answers", {})


def token(inventory: Inventory) -> SecretSource:
    """The runner's token."""
    found = inventory.hosts[0].settings.all(Runner)[0].token
    assert found is not None
    return found


def test_env(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment variable, read when the secret is needed, once."""
    source = token(estate(RUNNER + "token={env='T_ENV'}\n"))
    monkeypatch.setenv("T_ENV", "glrt-env-canary")
    assert source.resolve() == Secret("glrt-env-canary")
    monkeypatch.setenv("T_ENV", "other")
    assert source.resolve() == Secret("glrt-env-canary")


def test_file(estate: Estate, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file beside the inventory, without its last line break and no other."""
    monkeypatch.chdir(tmp_path.parent)
    write("-----KEY-----\nabc\n-----END-----\n", "token.txt")
    assert (
        token(estate(RUNNER + "token={file='token.txt'}\n")).resolve().reveal() == "-----KEY-----\nabc\n-----END-----"
    )


def test_command(estate: Estate, tmp_path: Path) -> None:
    """A command runs in the inventory's folder, without a shell and without input."""
    source = token(estate(RUNNER + "token={command=['sh', '-c', 'pwd; cat']}\n"))
    assert source.resolve().reveal() == str(tmp_path)


def test_prompt_is_asked_once(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal prompts are asked once, from several threads too."""
    asked: list[str] = []

    def ask(text: str) -> str:
        asked.append(text)
        return "typed-canary"

    monkeypatch.setattr(PROMPT, ask)
    more = RUNNER + "token={prompt='Token'}\n[ssh]\nbecome_password={prompt='Token'}\n"
    settings = estate(more).hosts[0].settings
    sources = [settings[Ssh].become_password, settings.all(Runner)[0].token] * 8
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda source: source.resolve() if source else None, sources))
    assert found == {Secret("typed-canary")}
    assert asked == ["Token"]


def test_command_runs_once_for_all_threads(estate: Estate, tmp_path: Path) -> None:
    """Hosts that share settings share the answer."""
    source = token(estate(RUNNER + "token={command=['sh', '-c', 'echo x >>count; echo secret']}\n"))
    barrier = threading.Barrier(8)

    def fetch(_: int) -> Secret:
        barrier.wait()
        return source.resolve()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(fetch, range(8))) == {Secret("secret")}
    assert (tmp_path / "count").read_text() == "x\n"


FAILING = [
    ("{env='T_UNSET'}", "the environment variable T_UNSET is not set", "export T_UNSET=…"),
    ("{env='T_EMPTY'}", "the environment variable T_EMPTY is empty", "export T_EMPTY=…"),
    ("{file='nothing'}", "nothing cannot be read: No such file or directory", "write the secret into that file"),
    ("{file='empty'}", "empty is empty", "write the secret there"),
    ("{file='binary'}", "binary is not UTF-8 text", "store the secret as text"),
    ("{command=['nothing-here']}", "nothing-here cannot be run", "install it"),
    ("{command=['sh','-c','echo why not >&2; exit 3']}", "sh failed with exit code 3: why not", "by hand"),
    ("{command=['true']}", "the output of true is empty", "write the secret there"),
]


@pytest.mark.parametrize(("source", "expected", "hint"), FAILING)
def test_missing_secret(
    estate: Estate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, expected: str, hint: str
) -> None:
    """A secret that cannot be fetched: file, line, key and what to do. Loading fetches nothing."""
    monkeypatch.setenv("T_EMPTY", "")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    inventory = estate(RUNNER + f"token={source}\n")
    with pytest.raises(InventoryError) as caught:
        token(inventory).resolve()
    assert caught.value.text.startswith(f"{tmp_path}/inventory.toml:11: runners[0].token: ")
    assert expected in caught.value.text
    assert hint in caught.value.hint


def test_failing_command_is_masked(estate: Estate) -> None:
    """A secret in the output of a failed program is masked, and no traceback contains it."""
    known = Secret("canary-in-stderr")
    source = token(estate(RUNNER + f"token={{command=['sh','-c','echo {known.reveal()} >&2; exit 1']}}\n"))
    with pytest.raises(InventoryError) as caught:
        source.resolve()
    assert "***" in caught.value.text
    assert known.reveal() not in "".join(traceback.format_exception(caught.value))


def test_nothing_typed(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty answer is refused."""
    monkeypatch.setattr(PROMPT, lambda _: "")
    with pytest.raises(InventoryError, match="nothing was typed"):
        token(estate(RUNNER + "token={prompt='Token'}\n")).resolve()


def test_secrets_in_free_form_tables(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are found in gitlab.rb settings, daemon.json and below [[runners]], and resolved in place."""
    settings = (
        estate(
            "[gitlab.settings.gitlab_rails]\nsmtp_password={env='T_ENV'}\nsmtp_port=25\nldap=[{bind={env='T_ENV'}}]\n"
            + RUNNER
            + "[runners.cache.s3]\nSecretKey={env='T_ENV'}\nAccessKey='plain-key'\n"
        )
        .hosts[0]
        .settings
    )
    monkeypatch.setenv("T_ENV", "free-canary")
    assert resolve(settings[Gitlab].settings) == {
        "gitlab_rails": {
            "smtp_password": Secret("free-canary"),
            "smtp_port": 25,
            "ldap": [{"bind": Secret("free-canary")}],
        }
    }
    cache = resolve(settings.all(Runner)[0].config)["cache"]
    assert cache == {"s3": {"SecretKey": Secret("free-canary"), "AccessKey": Secret("plain-key")}}


NO_SECRETS = [
    ("[docker.daemon]\nlog-opts={env='os'}\n", lambda s: s[Docker].daemon["log-opts"], {"env": "os"}),
    ("[gitlab.settings]\nx={env={A='b'}}\n", lambda s: s[Gitlab].settings["x"], {"env": {"A": "b"}}),
    ("[gitlab.settings]\nx={env='A', y=1}\n", lambda s: s[Gitlab].settings["x"], {"env": "A", "y": 1}),
    ("[gitlab.settings]\nx={command='ls'}\n", lambda s: s[Gitlab].settings["x"], {"command": "ls"}),
    ("[gitlab.settings]\nx={env='a b'}\n", lambda s: s[Gitlab].settings["x"], {"env": "a b"}),
    ("[gitlab.settings]\nx_token=5\n", lambda s: s[Gitlab].settings, {"x_token": 5}),
]


@pytest.mark.parametrize(("more", "read", "value"), NO_SECRETS)
def test_no_secret(estate: Estate, more: str, read: Callable[[object], object], value: object) -> None:
    """Tables that are similar to a secret's source stay tables."""
    assert read(estate(more).hosts[0].settings) == value


NAMES = [
    "token",
    "api_token",
    "registration_token",
    "smtp_password",
    "secretkey",
    "SecretKey",
    "AccessKey",
    "passphrase",
]
NAMES += ["db_key_base", "aws_secret_access_key", "aws_access_key_id", "client_secret", "AccountKey", "PrivateKey"]
PLAIN = ["name", "key", "tls-key-file", "ssl_certificate_key", "token_expires_at", "token_realm", "keyid", "host_key"]


@pytest.mark.parametrize("name", NAMES)
def test_secret_names(name: str) -> None:
    """Strings under such keys are never shown."""
    assert is_secret_name(name)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_names(name: str) -> None:
    """Similar names are not secret: masking a path everywhere would hide too much."""
    assert not is_secret_name(name)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True), (0o644, True)])
def test_warning_for_readable_file(write_estate: Callable[..., Path], mode: int, warned: bool) -> None:
    """Secrets as text in a file that others can read give a warning that names the key, not the secret."""
    path = write_estate("[gitlab.settings]\nsmtp_password='text-canary'\n", mode=mode)
    warnings = load([path]).warnings
    assert bool(warnings) is warned
    assert not warned or ("gitlab.settings.smtp_password" in warnings[0] and str(path) in warnings[0])
    assert "canary" not in "".join(warnings)


def test_no_warning_without_plain_secrets(write_estate: Callable[..., Path]) -> None:
    """A readable file without secrets is fine."""
    assert load([write_estate(RUNNER + "token={env='T'}\n", mode=0o644)]).warnings == ()


def test_nothing_is_shown(estate: Estate) -> None:
    """Neither repr, str, text, JSON nor pickles contain a secret."""
    inventory = estate(RUNNER + "token='show-canary'\n[ssh]\nbecome_password={prompt='Sudo'}\n")
    settings = inventory.hosts[0].settings
    shown = [repr(settings), str(settings), str(settings_dict(settings)), inventory.as_text(), str(inventory.as_dict())]
    shown += [f"{token(inventory)}", str(pickle.dumps(token(inventory).resolve())), repr(inventory)]
    assert not any("show-canary" in text for text in shown)
    assert "become_password = *** (prompt Sudo)" in inventory.as_text()
    assert inventory.as_dict()["hosts"]["gitlab"]["settings"]["ssh"]["become_password"] == "***"


def test_set_can_name_a_secret(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line can name the source of a secret, too; the message about a missing one begins with `--set`."""
    source = estate(overrides=["gitlab.api_token={env='T_SET'}"]).hosts[0].settings.get(Gitlab)
    assert source is not None
    assert source.api_token is not None
    monkeypatch.delenv("T_SET", raising=False)
    with pytest.raises(InventoryError, match=r"^--set: gitlab\.api_token: the environment variable T_SET is not set"):
        source.api_token.resolve()


def test_warning_for_a_secret_on_the_command_line(estate: Estate) -> None:
    """A secret as text in `--set` is visible to other users: the warning names its key."""
    (warning,) = estate(overrides=["gitlab.api_token=glpat-canary"]).warnings
    assert warning.startswith("--set gitlab.api_token: visible in the process list and the shell's history")
    assert "canary" not in warning
    assert estate(overrides=["gitlab.api_token={env='T'}"]).warnings == ()


def test_the_warning_has_the_keys_in_the_order_of_the_file(write: Callable[..., Path]) -> None:
    """It is the same in every run."""
    text = """
[registry]
external_url = "https://gitlab.example.com:5555"
[registry.login]
username = "u"
image = "u/i"
password = "text-canary"
[docker.daemon]
a_password = "text-canary"
[[runners]]
name = "r"
executor = "shell"
token = "text-canary"
[groups.web.docker.daemon]
b_password = "text-canary"
[hosts.web1]
groups = ["web"]
[hosts.web1.docker.daemon]
c_password = "text-canary"
"""
    (warning,) = load([write(text, mode=0o644)]).warnings
    keys = ["registry.login.password", "docker.daemon.a_password", "runners[0].token", "groups.web", "hosts.web1"]
    places = [warning.index(one) for one in keys]
    assert places == sorted(places)

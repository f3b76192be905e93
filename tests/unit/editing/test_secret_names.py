"""One list of secret-looking key names: each is masked wherever a key and its value are printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from provision.editing import json as json_file
from provision.editing import ruby, toml
from provision.engine.catalogue import load_inventory
from provision.secret import is_secret_name, mask_secret_values

NAMES = [
    *(
        "token",
        "api_token",
        "tokens",
        "SessionToken",
        "splunk-token",
        "password",
        "db_passwd",
        "passwords",
        "passphrase",
    ),
    *("secret", "client_secret", "secret_key", "SecretKey", "secretkey", "access_key", "AccessKey", "access_key_id"),
    *("aws_secret_access_key", "api_key", "private_key", "PrivateKey", "account_key", "AzureAccountKey", "signing_key"),
    *("sharedkey", "encryption_key", "db_key_base", "sentry_dsn", "credential", "credentials", "authorization"),
    *("requirepass", "masterauth", "auth_pass", "sentry_clientside_dsn", "google_json_key_string", "json_key"),
    *("active_record_encryption_primary_key", "active_record_encryption_deterministic_key"),
    *("auth_config", "DOCKER_AUTH_CONFIG", "derivation_salt", "private_token"),
]
PLAIN_NAMES = [
    *("name", "key", "tls-key-file", "ssl_certificate_key", "token_expires_at", "token_obtained_at", "token_realm"),
    *(
        "keyid",
        "host_key",
        "primary_key",
        "google_json_key_location",
        "local_key",
        "secret_file",
        "password_min_length",
        "server_tokens",
        "server_side_encryption",
    ),
]
CANARY = "hunter22-canary"


def inventory(names: list[str], folder: Path) -> str:
    """What `provision inventory` prints of settings under these names, in every table whose keys are free."""
    path = folder / "inventory.toml"
    lines = "".join(f'"{name}" = "{CANARY}"\n' for name in names)
    path.write_text(
        f'[hosts.gitlab]\ngroups = ["gitlab"]\n[gitlab]\nexternal_url = "https://gitlab.example.com"\n'
        f"[gitlab.settings.gitlab_rails]\n{lines}[docker.daemon]\n{lines}[docker.daemon.log-opts]\n{lines}"
        f'[[runners]]\nname = "r"\nexecutor = "shell"\n[runners.cache.extra]\n{lines}'
    )
    path.chmod(0o600)
    # Another process: here the value may be masked as a secret that a test registered.
    code = (
        "import sys; from pathlib import Path; from provision.engine.catalogue import load_inventory;"
        "print(load_inventory([Path(sys.argv[1])]).as_text())"
    )
    return subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout


def gitlab_rb(name: str) -> str:
    """The diff of gitlab.rb: as a part of a setting, as a key of a hash, in a comment."""
    text = f"a['{name}'] = '{CANARY}'\nb['x'] = {{ '{name}' => '{CANARY}' }}\n# a['{name}'] = '{CANARY}'\n"
    return ruby.diff(b"", text.encode())


def config_toml(name: str) -> str:
    """The diff of config.toml: as a key, in an inline table, in a comment."""
    return toml.diff("", f'"{name}" = "{CANARY}"\nx = {{ "{name}" = "{CANARY}" }}\n# {name} = "{CANARY}"\n')


def daemon_json(name: str) -> str:
    """The diff of daemon.json: as a key, and as the key of a nested object."""
    return json_file.diff(b"", json.dumps({name: CANARY, "x": {name: CANARY}}, indent=2).encode(), "daemon.json")


def free_text(name: str) -> str:
    """Free text: shell, YAML, TOML, Ruby."""
    return mask_secret_values(
        f"export {name}={CANARY}\n{name}: {CANARY}\n{name} = '{CANARY}'\n'{name}' => \"{CANARY}\"\n"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_secret_name_is_known_to_every_masker(name: str) -> None:
    """The value is masked, and the name is printed."""
    assert is_secret_name(name)
    for printed in (gitlab_rb(name), config_toml(name), daemon_json(name), free_text(name)):
        assert CANARY not in printed
        assert name in printed


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_a_plain_name_is_plain_to_every_masker(name: str) -> None:
    """Paths, times and switches about a secret are printed."""
    assert not is_secret_name(name)
    for printed, count in ((gitlab_rb(name), 3), (config_toml(name), 3), (daemon_json(name), 2), (free_text(name), 4)):
        assert printed.count(CANARY) == count


def test_the_inventory_knows_every_secret_name(tmp_path: Path) -> None:
    """In gitlab.rb settings, daemon.json and its log-opts, and below [[runners]]."""
    printed = inventory(NAMES, tmp_path).splitlines()
    assert [line for line in printed if CANARY in line] == []
    for name in NAMES:
        assert len([line for line in printed if f"{name} = ***" in line]) >= 4, name


def test_the_inventory_prints_plain_names(tmp_path: Path) -> None:
    """Paths, times and switches about a secret are printed."""
    assert inventory(PLAIN_NAMES, tmp_path).count(CANARY) == 4 * len(PLAIN_NAMES)


def test_the_inventory_masks_what_stands_below_a_secret_name(tmp_path: Path) -> None:
    """Arrays, tables and numbers under it, and `NAME=value` in any string, as in the diffs."""
    path = tmp_path / "inventory.toml"
    path.write_text(
        f'[hosts.gitlab]\ngroups = ["gitlab"]\n[gitlab]\nexternal_url = "https://gitlab.example.com"\n'
        f'[gitlab.settings.gitlab_rails]\ntokens = ["{CANARY}"]\ncredentials = {{ user = "{CANARY}" }}\ntoken = 2222\n'
        f'[[runners]]\nname = "r"\nexecutor = "shell"\nenvironment = ["DB_PASSWORD={CANARY}", "CI=true"]\n'
    )
    path.chmod(0o600)
    estate = load_inventory([path])
    for printed in (estate.as_text(), json.dumps(estate.as_dict())):
        assert CANARY not in printed
        assert "2222" not in printed
        assert "DB_PASSWORD=***" in printed
        assert "CI=true" in printed

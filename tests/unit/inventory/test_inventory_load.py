"""What an inventory resolves to: hosts, groups, precedence, defaults, paths."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from provision.engine.catalogue import load_inventory as load
from provision.errors import InventoryError
from provision.inventory import Inventory, Settings, Tables, settings_dict
from provision.inventory.tables.apt import Apt
from provision.inventory.tables.base import Table
from provision.inventory.tables.docker import Docker
from provision.inventory.tables.firewall import Firewall
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.host import Ssh
from provision.inventory.tables.registry import Registry
from provision.inventory.tables.runners import Runner, RunnerProgram

Estate = Callable[..., Inventory]


def test_ranges_groups_and_addresses(estate: Estate) -> None:
    """Ranges in names and addresses are expanded in order. Groups follow from the hosts that list them."""
    inventory = estate()
    assert [(host.name, host.address) for host in inventory.hosts] == [
        ("gitlab", "gitlab"),
        ("runner-01", "198.18.0.1"),
        ("runner-02", "198.18.0.2"),
        ("runner-03", "198.18.0.3"),
    ]
    groups = {name: [host.name for host in hosts] for name, hosts in inventory.groups.items()}
    assert groups == {"gitlab": ["gitlab"], "runners": ["runner-01", "runner-02", "runner-03"]}


def test_defaults(estate: Estate) -> None:
    """Absent keys have the documented defaults; absent optional tables are None."""
    settings = estate().hosts[0].settings
    assert (settings[Ssh].host_keys, settings[Ssh].become, settings[Ssh].connect_timeout) == ("strict", True, 10)
    assert (settings[Ssh].user, settings[Ssh].port, settings[Ssh].become_password) == (None, None, None)
    assert (settings[Docker].source, settings[Docker].version, settings[Docker].users) == ("docker.com", None, ())
    assert settings[Docker].daemon is None
    assert settings.get(Registry) is None
    assert (settings[Gitlab].edition, settings[Gitlab].install, settings[Gitlab].settings) == (
        "ce",
        True,
        {},
    )
    assert (settings.get(Firewall), settings.all(Runner)) == (None, ())
    assert (settings[Apt].docker, settings[Apt].gitlab, settings[Apt].runner) == (None, None, None)
    assert (settings[RunnerProgram].version, settings[RunnerProgram].config) == (None, {})


def test_settings_without_a_file() -> None:
    """A tree of tables is validated by itself, as tests of tasks do; absent tables have their defaults."""
    settings, problems = Tables([Docker, Registry]).settings({"docker": {"users": ["me"]}})
    assert (settings[Docker].users, settings.get(Registry), problems) == (("me",), None, [])


LEVELS = """\
[ssh]
user = "top"
port = 1
connect_timeout = 1
proxy_jump = "top"
[groups.first.ssh]
port = 2
connect_timeout = 2
proxy_jump = "first"
[groups.second.ssh]
connect_timeout = 3
proxy_jump = "second"
[hosts.h]
groups = ["first", "second"]
ssh.proxy_jump = "own"
[hosts.other]
groups = ["second", "first"]
"""


def test_precedence(write: Callable[..., Path]) -> None:
    """Host beats group beats top level; of the host's groups the later one wins."""
    own, other = load([write(LEVELS)]).hosts
    assert own.settings[Ssh].model_dump(include={"user", "port", "connect_timeout", "proxy_jump"}) == {
        "user": "top",
        "port": 2,
        "connect_timeout": 3,
        "proxy_jump": "own",
    }
    assert (other.settings[Ssh].connect_timeout, other.settings[Ssh].proxy_jump) == (2, "first")


OVERRIDES = [
    (["ssh.user=set"], "set", "own"),
    (["ssh.proxy_jump=set"], "top", "set"),  # the command line beats the files, also a host's own table
    (["ssh.proxy_jump=set", "hosts.h.ssh.proxy_jump=mine"], "top", "mine"),
    (["hosts.h.ssh.proxy_jump=mine", "ssh.proxy_jump=set"], "top", "mine"),
    (["groups.second.ssh.user=group"], "group", "own"),
    (["ssh.user=a", "ssh.user=b"], "b", "own"),
    (['ssh={user="inline"}'], "inline", "own"),
]


@pytest.mark.parametrize(("overrides", "user", "jump"), OVERRIDES)
def test_set(write: Callable[..., Path], overrides: list[str], user: str, jump: str) -> None:
    """`--set` wins over the files, and has the same precedence within itself."""
    host = load([write(LEVELS)], overrides).hosts[0]
    assert (host.settings[Ssh].user, host.settings[Ssh].proxy_jump) == (user, jump)


VALUES = [
    (
        "registry.external_url=https://r.example.com:5555",
        lambda s: str(s[Registry].external_url),
        "https://r.example.com:5555",
    ),
    ("firewall.enable=true", lambda s: s[Firewall].enable, True),
    ("docker.users=['a', 'b']", lambda s: s[Docker].users, ("a", "b")),
    ("docker.version=5:29.*", lambda s: s[Docker].version, "5:29.*"),
    ("docker.version='29'", lambda s: s[Docker].version, "29"),
    ("gitlab.version=19.3.0", lambda s: s[Gitlab].version, "19.3.0"),
    (
        "gitlab.settings.gitlab_rails.time_zone=Europe/Berlin",
        lambda s: s[Gitlab].settings["gitlab_rails"]["time_zone"],
        "Europe/Berlin",
    ),
    ('docker.daemon."log-driver"=local', lambda s: s[Docker].daemon, {"log-driver": "local"}),
    ("gitlab.settings.a.b=1\nssh.port = 2", lambda s: s[Gitlab].settings["a"]["b"], "1\nssh.port = 2"),
]


@pytest.mark.parametrize(("override", "read", "value"), VALUES, ids=[v[0].split("=")[0] for v in VALUES])
def test_set_values(estate: Estate, override: str, read: Callable[[Settings], object], value: object) -> None:
    """VALUE is TOML. If it is not valid TOML it is a string, and it cannot add other keys."""
    assert read(estate(overrides=[override]).hosts[0].settings) == value


def test_set_host_keys(estate: Estate) -> None:
    """A host's own keys can be set, for single hosts of a range and for ranges."""
    inventory = estate(
        overrides=["hosts.runner-02.address=10.9.9.9", 'hosts."runner-[01:02]".groups=["runners", "big"]']
    )
    assert [host.address for host in inventory.hosts] == ["gitlab", "198.18.0.1", "10.9.9.9", "198.18.0.3"]
    assert [host.name for host in inventory.groups["big"]] == ["runner-01", "runner-02"]
    one = estate(overrides=["hosts.runner-02.ssh.port=2222"])
    assert [host.settings[Ssh].port for host in one.hosts] == [None, None, 2222, None]


def test_files_merge(write: Callable[..., Path]) -> None:
    """Later files win, key by key; arrays of tables are replaced as a whole."""
    one = write('[hosts.a]\n[docker]\nusers=["x"]\nversion="1"\n[[runners]]\nname="r"\nexecutor="shell"\n', "one.toml")
    two = write('[hosts.b]\n[docker]\nversion="2"\n[[runners]]\nname="s"\nexecutor="ssh"\n', "two.toml")
    inventory = load([one, two])
    assert [host.name for host in inventory.hosts] == ["a", "b"]
    settings = inventory.hosts[0].settings
    assert (settings[Docker].users, settings[Docker].version) == (("x",), "2")
    assert [runner.name for runner in settings.all(Runner)] == ["s"]
    assert inventory.files == (str(one), str(two))


def test_paths_are_relative_to_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are relative to the folder of their file, those of `--set` to the current folder; ~ is the home."""
    (tmp_path / "sub").mkdir()
    first, second = tmp_path / "a.toml", tmp_path / "sub/b.toml"
    first.write_text(
        '[hosts.h]\n[ssh]\nidentity_file = "id"\nknown_hosts = "~/kh"\n[registry]\nexternal_url="https://g"\n'
    )
    second.write_text('[hosts.h.registry.certificate]\nca = "ca.pem"\n[apt]\ndocker = {url="https://m", key="d.asc"}\n')
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    settings = (
        load([Path("a.toml"), Path("sub/b.toml")], ["apt.runner={url='https://m',key='r.asc'}"]).hosts[0].settings
    )
    assert (settings[Ssh].identity_file, settings[Ssh].known_hosts) == (tmp_path / "id", Path("/home/me/kh"))
    assert settings[Registry].certificate is not None
    assert settings[Registry].certificate.ca == tmp_path / "sub/ca.pem"
    assert settings[Apt].docker is not None
    assert settings[Apt].docker.key == tmp_path / "sub/d.asc"
    assert settings[Apt].runner is not None
    assert settings[Apt].runner.key == tmp_path / "r.asc"


def test_equal_settings_are_one_object(estate: Estate) -> None:
    """Hosts with equal settings share one object; others do not."""
    gitlab, *runners = estate("[groups.runners.docker]\nsource='distro'\n").hosts
    assert len({id(host.settings) for host in runners}) == 1
    assert gitlab.settings is not runners[0].settings
    assert (gitlab.settings[Docker].source, runners[0].settings[Docker].source) == ("docker.com", "distro")


def test_a_table_that_several_hosts_have_is_validated_once(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This also holds if the hosts differ in other tables. A different port on each host costs one table per host."""
    ports = "".join(f"[hosts.web{number}.ssh]\nport = {2000 + number}\n" for number in range(20))
    path = write(f'[docker]\nsource = "distro"\n[[runners]]\nname = "one"\nexecutor = "shell"\n{ports}')
    validated: Counter[str] = Counter()
    validate = Table.model_validate.__func__  # type: ignore[attr-defined]  # of a class method

    def counted(table: type[Table], value: object) -> Table:
        validated[table.__name__] += 1
        found: Table = validate(table, value)
        return found

    monkeypatch.setattr(Table, "model_validate", classmethod(counted))
    hosts = load([path]).hosts
    assert validated.pop("Ssh") == 20
    assert validated.pop("HostTable") == 20
    assert validated["Docker"] == validated["Runner"] == 1
    assert set(validated.values()) == {1}
    assert [host.settings[Ssh].port for host in hosts] == list(range(2000, 2020))
    assert len({id(host.settings[Docker]) for host in hosts}) == 1
    assert len({id(host.settings.all(Runner)[0]) for host in hosts}) == 1


def test_a_wrong_table_is_reported_for_each_place(write: Callable[..., Path]) -> None:
    """A host never gets the table of a host with other values, and the mistakes of every host are found."""
    path = write(
        '[docker]\nsource = "distro"\n[hosts.a.docker]\nsource = "x"\n[hosts.b.docker]\nusers = ["me"]\n'
        '[hosts.c.docker]\nsource = "y"\n'
    )
    with pytest.raises(InventoryError) as caught:
        load([path])
    assert [line.split(": ")[1] for line in caught.value.text.splitlines()] == [
        "hosts.a.docker.source",
        "hosts.c.docker.source",
    ]


def test_settings_are_frozen(estate: Estate) -> None:
    """Settings cannot be changed: hosts share them."""
    with pytest.raises(ValueError, match="frozen"):
        estate().hosts[0].settings[Ssh].port = 1


HOST_KEYS = [
    "SHA256:" + "a" * 43,
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ",
    "ssh-rsa AAAAB3NzaC1yc2E= me@here",
    "ecdsa-sha2-nistp256 AAAAE2Vj",
]


@pytest.mark.parametrize("key", HOST_KEYS)
def test_host_key(write: Callable[..., Path], key: str) -> None:
    """A pin is a fingerprint or a public key."""
    assert load([write(f'[hosts.h]\nhost_key = "{key}"\n')]).hosts[0].host_key == key


@pytest.mark.parametrize("address", ["2001:db8::1", "fe80::1%eth0", "a_b.example.com", "10.0.0.1"])
def test_address(write: Callable[..., Path], address: str) -> None:
    """Names and addresses of both kinds."""
    assert load([write(f'[hosts.h]\naddress = "{address}"\n')]).hosts[0].address == address


def test_as_dict_is_json(estate: Estate) -> None:
    """Hosts, groups and settings as plain data with the inventory's own keys."""
    more = (
        "[firewall]\nallow=['80/tcp', {port=9, from=['10.0.0.0/8']}]\n[ssh]\nidentity_file='/id'\nbecome_password='x'\n"
    )
    inventory = estate(more + "[hosts.web]\nhost_key='SHA256:" + "a" * 43 + "'\n")
    found = json.loads(json.dumps(inventory.as_dict()))
    assert found["groups"] == {"gitlab": ["gitlab"], "runners": ["runner-01", "runner-02", "runner-03"]}
    assert found["hosts"]["runner-02"]["address"] == "198.18.0.2"
    assert found["hosts"]["runner-02"]["groups"] == ["runners"]
    assert found["hosts"]["web"]["host_key"].startswith("SHA256:")
    settings = found["hosts"]["web"]["settings"]
    assert settings["firewall"]["allow"] == ["80/tcp", {"port": "9", "from": ["10.0.0.0/8"]}]
    assert settings["ssh"] == {
        "connect_timeout": 10,
        "host_keys": "strict",
        "become": True,
        "identity_file": "/id",
        "become_password": "***",
    }
    unmasked = settings_dict(inventory.hosts[-1].settings)["ssh"]["become_password"]
    assert unmasked.resolve().reveal() == "x"


def test_start_up_is_quick(tmp_path: Path) -> None:
    """The command line alone does not import pydantic, so that `--help` is quick."""
    code = "import sys, provision.cli.run; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0


def test_a_byte_order_mark_is_taken(tmp_path: Path) -> None:
    """Editors on Windows write one. Lines in messages are counted as they look."""
    path = tmp_path / "inventory.toml"
    path.write_bytes(b"\xef\xbb\xbf[hosts.web1]\n")
    assert [host.name for host in load((path,), ()).hosts] == ["web1"]
    path.write_bytes(b"\xef\xbb\xbf[hosts.web1]\nwrong = 1\n")
    with pytest.raises(InventoryError, match=r"inventory.toml:2: hosts.web1.wrong: unknown key"):
        load((path,), ())

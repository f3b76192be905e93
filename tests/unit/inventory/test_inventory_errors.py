"""Each kind of mistake gives one message with file, line, key, what is expected and the nearest known key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from provision.engine.catalogue import load_inventory as load
from provision.errors import InventoryError, UsageError
from provision.inventory.tables.base import describe

RUNNER = '[[runners]]\nname = "a"\nexecutor = "shell"\n'

# the text after the estate (from line 8 on), the line, the key, and a part of the message
MISTAKES = [
    ("[regitsry]\n", 8, "regitsry", 'unknown key; did you mean "registry"?'),
    ("[docker]\nsorce = 'distro'\n", 9, "docker.sorce", 'unknown key; did you mean "source"?'),
    (
        "[docker]\nzzz = 1\n",
        9,
        "docker.zzz",
        "unknown key; there are: buildkit, daemon, registries, restart, source, users, version",
    ),
    ("[registry.s3]\nbuckett = 'b'\n", 9, "registry.s3.buckett", 'did you mean "bucket"?'),
    (RUNNER + "tls-ca-fil = '/x'\n", 11, "runners[0].tls-ca-fil", 'did you mean "tls-ca-file"?'),
    ("[hosts.web]\nadress = 'x'\n", 9, "hosts.web.adress", 'did you mean "address"?'),
    ("[hosts.web.dcoker]\n", 8, "hosts.web.dcoker", 'did you mean "docker"?'),
    ("[groups.runners.docker]\nuser = []\n", 9, "groups.runners.docker.user", 'did you mean "users"?'),
    ("[groups.runers]\n", 8, "groups.runers", "no host lists the group 'runers'; did you mean \"runners\"?"),
    ("[registry]\nredirect = true\n", 8, "registry.external_url", "is missing"),
    ("[docker]\nusers = 'me'\n", 9, "docker.users", 'expected an array, got the string "me"'),
    ("[docker]\nusers = ['me', 3]\n", 9, "docker.users[1]", "expected a string, got the number 3"),
    ("[docker]\nusers = [\n 'me',\n 'Not me',\n]\n", 11, "docker.users[1]", "expected a user name, got 'Not me'"),
    ("[docker]\nsource = 'apt'\n", 9, "docker.source", "expected 'docker.com' or 'distro', got the string \"apt\""),
    ("[docker]\nversion = '-29'\n", 9, "docker.version", "expected a package version"),
    ("[docker]\nversion = 29\n", 9, "docker.version", "expected a string, got the number 29"),
    ("docker.daemon.log-opts.max-size = 3\n", 8, "gitlab.docker", "unknown key"),
    ("[docker.daemon]\nlog-opts = {max-file = 3}\n", 9, "docker.daemon.log-opts.max-file", 'expected "3" in quotes'),
    ("[docker.daemon]\nx = 2026-01-01\n", 9, "docker.daemon.x", "expected a string, number, boolean, array or table"),
    ("[firewall]\nenable = 'yes'\n", 9, "firewall.enable", 'expected true or false, got the string "yes"'),
    ("[firewall]\nallow = ['80/tpc']\n", 9, "firewall.allow[0]", 'expected "80/tcp", "6000:6007/udp", a port'),
    ("[firewall]\nallow = [70000]\n", 9, "firewall.allow[0]", "expected ports from 1 to 65535"),
    ("[firewall]\nallow = ['9:8/tcp']\n", 9, "firewall.allow[0]", "the lower one first"),
    ("[firewall]\nallow = ['8:9']\n", 9, "firewall.allow[0]", 'expected "8:9/tcp" or "8:9/udp"'),
    ("[firewall]\nallow = [{port = 1, form = []}]\n", 9, "firewall.allow[0]", "expected"),
    ("[firewall]\nallow = [{port = 1, from = ['me']}]\n", 9, "firewall.allow[0]", "expected addresses and networks"),
    ("[ssh]\nport = 0\n", 9, "ssh.port", "expected at least 1, got the number 0"),
    ("[ssh]\nhost_keys = 'no'\n", 9, "ssh.host_keys", "expected 'strict' or 'accept-new'"),
    ("[ssh]\nuser = '-oProxyCommand=x'\n", 9, "ssh.user", "expected one word"),
    ("[ssh]\nidentity_file = 3\n", 9, "ssh.identity_file", "expected a path as a string, got the number 3"),
    ("[ssh]\nbecome_password = {env = 'A', file = 'b'}\n", 9, "ssh.become_password", "expected a secret: { env"),
    ("[ssh]\nbecome_password = {env = 'a-b'}\n", 9, "ssh.become_password", "expected a secret: { env"),
    ("[hosts.b.gitlab]\nexternal_url = 'gitlab.b'\n", 9, "hosts.b.gitlab.external_url", "a URL with its scheme"),
    ("[registry]\nexternal_url = 'https://g/x'\n", 9, "registry.external_url", "expected a URL without a path"),
    ("[registry]\nexternal_url = 'https://g:0'\n", 9, "registry.external_url", "expected a URL with its scheme"),
    ("[gitlab.settings]\nexternal_url = 'x'\n", 9, "gitlab.settings.external_url", "is set by [gitlab] external_url"),
    ("[registry.certificate]\nkey = '/k'\n", 9, "registry.certificate.key", '"fullchain" is missing'),
    ("[registry.certificate]\nkey = 'k'\n", 9, "registry.certificate.key", "expected an absolute path on the host"),
    ("[registry.certificate]\nlocal_key = 'k'\n", 9, "registry.certificate.local_key", '"local_fullchain" is missing'),
    (
        "[registry.certificate]\nfullchain='/c'\nkey='/k'\nlocal_fullchain='c'\nlocal_key='k'\n",
        11,
        "registry.certificate.local_fullchain",
        "not both",
    ),
    ("[registry.s3]\nregionendpoint = 'a.b'\n", 9, "registry.s3.regionendpoint", "expected a URL with its scheme"),
    (
        "[registry.s3]\nbucket='b'\nregion='r'\naccesskey={env='A'}\n",
        11,
        "registry.s3.accesskey",
        '"secretkey" is missing: it goes with "accesskey"',
    ),
    (
        "[registry.login]\nusername='u'\npassword={env='P'}\nimage='Sammy/x'\n",
        11,
        "registry.login.image",
        "expected group/project in lower case",
    ),
    (RUNNER + "token='a'\nregistration_token='b'\n", 12, "runners[0].registration_token", "exclude each other"),
    (RUNNER + RUNNER, 12, "runners[1].name", "runners[0] has the name 'a', too"),
    ("[[runners]]\nname='a'\nexecutor='docker'\n", 8, "runners[0].docker", '"image" is missing'),
    ("[[runners]]\nname='a'\nexecutor='podman'\n", 10, "runners[0].executor", "expected 'docker',"),
    (RUNNER + "tags=['a,b']\n", 11, "runners[0].tags[0]", "expected one tag"),
    (RUNNER + "project='a/b'\nrunner_type='group_type'\n", 11, "runners[0].project", "a runner of group_type has no"),
    (RUNNER + "runner_type='group_type'\n", 11, "runners[0].runner_type", '"group" is missing'),
    (RUNNER + "group=true\n", 11, "runners[0].group", "expected a string or a whole number, got the boolean true"),
    ("[runner]\nconcurrent = 0\n", 9, "runner.concurrent", "expected at least 1, got the number 0"),
    ("[apt]\ndocker = {url = 'mirror'}\n", 9, "apt.docker.url", "expected a URL with its scheme"),
    ("[hosts.runner-02]\n", 8, "hosts.runner-02", '"runner-[01:03]" declares the host'),
    ("[hosts.'-x']\n", 8, "hosts.-x", "not starting with '-'"),
    ("[hosts.'a b']\n", 8, 'hosts."a b"', "expected a host name of letters"),
    ("[hosts.'w[2:1]']\n", 8, 'hosts."w[2:1]"', "the range [2:1] ends before it starts"),
    ("[hosts.'w[1:20000]']\n", 8, 'hosts."w[1:20000]"', "longer than 10000"),
    ("[hosts.'w[1:3]']\naddress='w[1:2]'\n", 9, 'hosts."w[1:3]".address', "means 3 hosts and the address 'w[1:2]' 2"),
    ("[hosts.w]\naddress='me@w'\n", 9, "hosts.w.address", "(give the user in ssh.user)"),
    ("[hosts.w]\naddress='-w'\n", 9, "hosts.w.address", "expected a host name or an IP address"),
    ("[hosts.w]\naddress='web1..example.com'\n", 9, "hosts.w.address", "two dots in a row"),
    (f"[hosts.w]\naddress='{'x' * 64}.example.com'\n", 9, "hosts.w.address", "longer than 63 characters"),
    ("[hosts.'w..x']\n", 8, 'hosts."w..x".address', "two dots in a row"),
    ("[ssh]\nproxy_jump='bastion:abc'\n", 9, "ssh.proxy_jump", "expected user@host:port"),
    ("[ssh]\nproxy_jump='bastion,'\n", 9, "ssh.proxy_jump", "expected user@host:port"),
    ("[ssh]\nproxy_jump='bastion:70000'\n", 9, "ssh.proxy_jump", "expected user@host:port"),
    ("[ssh]\nproxy_jump='[2001:db8::5:2222'\n", 9, "ssh.proxy_jump", "expected user@host:port"),
    ("[ssh]\nproxy_jump='web1..example.com'\n", 9, "ssh.proxy_jump", "two dots in a row"),
    ("[hosts.w]\nhost_key='MD5:1'\n", 9, "hosts.w.host_key", 'expected "SHA256:…"'),
    ("[hosts.w]\ngroups=['a', 'a']\n", 9, "hosts.w.groups[1]", "'a' is listed twice"),
    ("[hosts.w.hosts]\n", 8, "hosts.w.hosts", "it belongs to the top level"),
    ("[groups.runners]\ngroups=['a']\n", 9, "groups.runners.groups", "it belongs to [hosts.NAME]"),
    ("[groups.runners]\naddress='a'\n", 9, "groups.runners.address", "it belongs to [hosts.NAME]"),
    ("[hosts.w]\ngroups=['a b']\n", 9, "hosts.w.groups[0]", "expected a group name of letters"),
    ("[hosts]\nw='10.0.0.1'\n", 9, "hosts.w", 'expected a table [hosts.w], got the string "10.0.0.1"'),
]


@pytest.mark.parametrize(
    ("more", "line", "key", "expected"), MISTAKES, ids=[f"{m[2]}-{m[1]}-{i}" for i, m in enumerate(MISTAKES)]
)
def test_mistake_names_its_place(mistake: Callable[..., str], more: str, line: int, key: str, expected: str) -> None:
    """The message has FILE:LINE: KEY: and what is expected."""
    assert mistake(more, expected).startswith(f"{line}: {key}: ")


BROKEN = [
    ("x =\n", ":1:4: not valid TOML: Invalid value"),
    ("a = 1\nx = '''\n\n", ":3 (end of file): not valid TOML: Expected"),
    ("a = 1\na = 2\n", ":2:6: not valid TOML: Cannot overwrite a value"),
    ("", ": has no host: write a table such as [hosts.web1]"),
    ("hosts = 5\n", ":1: hosts: expected tables [hosts.NAME], got the number 5"),
    ("groups = []\n[hosts.a]\n", ":1: groups: expected tables [groups.NAME], got an array"),
]


@pytest.mark.parametrize(("text", "expected"), BROKEN)
def test_broken_file(write: Callable[..., Path], text: str, expected: str) -> None:
    """A file that is not TOML, or not an inventory, is refused with the place."""
    path = write(text)
    with pytest.raises(InventoryError) as caught:
        load([path])
    assert caught.value.text.startswith(f"{path}{expected}")


def test_missing_file(tmp_path: Path) -> None:
    """The message names a missing file and how to create one."""
    with pytest.raises(InventoryError, match=r"nothing\.toml: cannot be read: No such file") as caught:
        load([tmp_path / "nothing.toml"])
    assert "provision init" in caught.value.hint


def test_no_utf8(tmp_path: Path) -> None:
    """A file in another encoding is refused."""
    path = tmp_path / "latin.toml"
    path.write_bytes(b"# caf\xe9\n")
    with pytest.raises(InventoryError, match="not UTF-8 at byte 5"):
        load([path])


def test_all_mistakes_at_once_in_file_order(write_estate: Callable[..., Path]) -> None:
    """Up to fifty are reported at once, sorted by line; the rest is counted."""
    path = write_estate("[docker]\n" + "".join(f"wrong{n} = 1\n" for n in range(52)))
    with pytest.raises(InventoryError) as caught:
        load([path])
    lines = caught.value.text.splitlines()
    assert [line.split(":")[1] for line in lines[:50]] == [str(n) for n in range(9, 59)]
    assert lines[50:] == ["… and 2 more"]


def test_a_mistake_of_many_hosts_is_told_once(write_estate: Callable[..., Path]) -> None:
    """A mistake at the top level, which affects all hosts, gives one message."""
    path = write_estate("[docker]\nwrong = 1\n[hosts.gitlab.firewall]\nenable = true\n")
    with pytest.raises(InventoryError) as caught:
        load([path])
    assert len(caught.value.text.splitlines()) == 1


def test_place_is_the_file_that_brought_it(write: Callable[..., Path], write_estate: Callable[..., Path]) -> None:
    """With several files the message names the one whose value is used."""
    first = write_estate("[ssh]\nport = 22\n")
    second = write("# more\n[ssh]\nport = 0\n", "more.toml")
    with pytest.raises(InventoryError) as caught:
        load([first, second])
    assert caught.value.text.startswith(f"{second}:3: ssh.port: ")


SETS = [
    (["novalue"], "--set novalue: not KEY=VALUE"),
    (["=1"], "--set : not KEY=VALUE"),
    (["a b=1"], "--set a b=…: 'a b' is not a key path"),
    (["gitlab.edtion=ce"], '--set: gitlab.edtion: unknown key; did you mean "edition"?'),
    (["docker.version=29"], "--set: docker.version: expected a string, got the number 29 (put it in quotes:"),
    (
        ["hosts.runner-04.ssh.port=1"],
        "--set: hosts.runner-04: no host has the name 'runner-04'; did you mean \"runner-0",
    ),
    (["groups.runnr.ssh.port=1"], "--set: groups.runnr: no host lists the group 'runnr'; did you mean \"runners\"?"),
    (["hosts.gitlab.address=a b"], "--set: hosts.gitlab.address: expected a host name or an IP address"),
    (["hosts.gitlab=5"], "--set: hosts.gitlab: expected a table [hosts.gitlab], got the number 5"),
]


@pytest.mark.parametrize(("overrides", "expected"), SETS, ids=[s[0][0] for s in SETS])
def test_mistake_on_the_command_line(write_estate: Callable[..., Path], overrides: list[str], expected: str) -> None:
    """The message about a mistake in `--set` begins with `--set`."""
    with pytest.raises(UsageError) as caught:
        load([write_estate()], overrides)
    assert caught.value.text.startswith(expected)


def test_no_inventory_named() -> None:
    """Without a file the command is refused."""
    with pytest.raises(UsageError, match="no inventory is given"):
        load([])


def test_secret_values_are_not_told(write_estate: Callable[..., Path]) -> None:
    """A wrong value under a secret's name is not repeated in the message."""
    path = write_estate("[ssh]\nbecome_password = 4711\n[docker]\napi_token = 'glpat-canary'\n")
    with pytest.raises(InventoryError) as caught:
        load([path])
    assert "4711" not in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_wrong_groups_hides_nothing(tmp_path: Path) -> None:
    """The settings of that host and of its groups are checked, too; nothing that follows from it is reported."""
    file = tmp_path / "i.toml"
    file.write_text(
        '[hosts.web1]\ngroups = "web"\n[hosts.web1.docker]\nuserz = []\n[groups.web.docker]\nsorce = "x"\n'
        '[firewall]\nenabel = true\n[hosts."web[2:1]"]\naddress = \'x\'\n[hosts."web[2:1]".ssh]\nprot = 1\n'
    )
    with pytest.raises(InventoryError) as caught:
        load([file])
    found = [line.split(": ")[1] for line in caught.value.text.splitlines()]
    assert found == [
        "hosts.web1.groups",
        "hosts.web1.docker.userz",
        "groups.web.docker.sorce",
        "firewall.enabel",
        'hosts."web[2:1]"',
        'hosts."web[2:1]".ssh.prot',
    ]


def test_a_group_that_no_host_lists_is_checked(tmp_path: Path) -> None:
    """Its misspelt keys are reported with its name."""
    file = tmp_path / "i.toml"
    file.write_text('[hosts.a]\ngroups = ["web"]\n[groups.wbe.docker]\nsorce = "x"\n')
    with pytest.raises(InventoryError) as caught:
        load([file])
    assert "groups.wbe: no host lists the group" in caught.value.text
    assert 'groups.wbe.docker.sorce: unknown key; did you mean "source"?' in caught.value.text


def test_an_inventory_without_hosts_is_checked(tmp_path: Path) -> None:
    """The top level is read."""
    file = tmp_path / "i.toml"
    file.write_text('[docker]\nsorce = "x"\n')
    with pytest.raises(InventoryError, match=r'docker.sorce: unknown key; did you mean "source"'):
        load([file])


def test_the_mistakes_of_all_files_are_reported(tmp_path: Path) -> None:
    """One file that is missing and one that is not TOML do not hide those of the others."""
    good, broken = tmp_path / "good.toml", tmp_path / "broken.toml"
    good.write_text("[hosts.a]\nadress = 'x'\n[groups.web.docker]\nusers = []\n")
    broken.write_text("[hosts.b\n")
    with pytest.raises(InventoryError) as caught:
        load([broken, good])
    assert "broken.toml:1:9: not valid TOML" in caught.value.text
    assert 'hosts.a.adress: unknown key; did you mean "address"?' in caught.value.text
    assert "no host lists" not in caught.value.text  # the hosts of the broken file may


def test_a_password_in_a_url_is_masked_before_a_value_is_cut() -> None:
    """Values of more than 60 characters are cut: the password must not lose the `@` that shows where it ends."""
    text = describe(f"http://user:canary{'x' * 80}@proxy.example.com:3128")
    assert text == 'the string "http://user:***@proxy.example.com:3128"'

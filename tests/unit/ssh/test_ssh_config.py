"""ssh_config files count as OpenSSH reads them: `ssh -G` is the judge, with and without OpenSSH on the controller."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from provision.errors import ProvisionError, Unreachable, UsageError
from provision.ssh import Target, connect, ssh_config
from provision.ssh.connection import HostConnection, resolve
from provision.ssh.ssh_config import HostOptions, host_options
from tests.support.waiting import wait_for
from tests.unit.ssh.test_wire import running


@pytest.fixture(params=["openssh", "evaluated"])
def _both_readers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two ways in which the files are read: by `ssh -G`, and here, where OpenSSH is not installed."""
    if request.param == "evaluated":
        without_openssh(monkeypatch)


both_readers = pytest.mark.usefixtures("_both_readers")


def without_openssh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the program ssh."""
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **options: None if name == "ssh" else which(name, **options))


def write(home: Path, **files: str) -> None:
    """`config` is ~/.ssh/config, the other files are in the same folder."""
    for name, text in files.items():
        (home / ".ssh" / name).write_text(text)


def judge(home: Path, host: str, *arguments: str) -> dict[str, str]:
    """What OpenSSH says about a host, with ~/.ssh/config alone."""
    command = ["ssh", "-F", home / ".ssh" / "config", *arguments, "-G", host]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    found: dict[str, str] = {}
    for line in shown.splitlines():
        keyword, _, value = line.partition(" ")
        found.setdefault(keyword, value)
    return found


def agrees(home: Path, host: str) -> HostOptions:
    """The options of a host, after comparing them with OpenSSH's."""
    found, right = host_options(host), judge(home, host)
    assert (found.hostname, str(found.port), found.user) == (right["hostname"], right["port"], right["user"])
    assert (found.proxy_jump or "none") == right.get("proxyjump", "none")
    assert ("yes" if found.identities_only else "no") == right["identitiesonly"]
    assert (found.host_key_alias or "none") == right.get("hostkeyalias", "none")
    return found


@both_readers
def test_comments_at_the_end_of_lines(empty_home: Path) -> None:
    """A comment after a value is no part of it."""
    config = "Host web1 # the front one\n HostName 192.0.2.10 # was .9\n Port 2222 # not 22\n User ops   # ops\n"
    write(empty_home, config=config)
    found = agrees(empty_home, "web1")
    assert (found.hostname, found.port, found.user) == ("192.0.2.10", 2222, "ops")
    connection = resolve(Target("web1", "web1"))
    assert (connection.host, connection.port, connection.user) == ("192.0.2.10", 2222, "ops")


@both_readers
def test_an_include_inside_a_host_block_is_conditional(empty_home: Path) -> None:
    """The Host blocks of a file that is included for other hosts do not apply, whatever they match."""
    write(
        empty_home,
        config=f"Host *.corp\n Include {empty_home}/.ssh/corp.conf\nHost *\n Port 2200\n",
        **{"corp.conf": "Host *\n User corp\n ProxyJump jump.corp\n"},
    )
    assert agrees(empty_home, "other").user != "corp"
    assert resolve(Target("other", "other")).gateway is None
    assert agrees(empty_home, "db.corp").proxy_jump == "jump.corp"
    assert agrees(empty_home, "db.corp").port == 2200


def test_match_final_all(empty_home: Path) -> None:
    """`Match final all` applies after the rest."""
    write(empty_home, config="Host web1\n User ops\nMatch final all\n Port 2222\n")
    assert agrees(empty_home, "web1").port == 2222
    assert resolve(Target("web1", "web1")).user == "ops"


@both_readers
def test_match_host_with_an_equals_sign(empty_home: Path) -> None:
    """`Match host=web*` is a condition; newer versions of OpenSSH take it, and older ones refuse the file."""
    write(empty_home, config="Match host web1\n Port 2200\n")
    assert agrees(empty_home, "web1").port == 2200
    assert agrees(empty_home, "web2").port == 22
    write(empty_home, config="Match host=web1\n Port 2201\n")
    assert agrees(empty_home, "web1").port == 2201
    assert agrees(empty_home, "web2").port == 22


@both_readers
@pytest.mark.parametrize(
    "block",
    [
        "Match originalhost web*,!web2",
        "Match user ops",
        "Match !user ops",
        "Match host web1 user ops",
        "Match localuser root",
        "Match !host web1",
        "Host web* !web1",
        "Host !web1 *",
        "Host WEB1",
        'Host "web1"',
        "Host=web1",
        "match all",
    ],
)
@pytest.mark.parametrize("host", ["web1", "web2"])
def test_blocks(empty_home: Path, block: str, host: str) -> None:
    """Conditions that need nothing but the names of host and user."""
    config = f"Host web1\n User ops\n{block}\n Port = 2200\n HostName %h.example.com\n IdentitiesOnly yes\n"
    write(empty_home, config=config + "Port 2300\nHost *\n HostKeyAlias al\n")
    agrees(empty_home, host)


@pytest.mark.parametrize(
    "block",
    ['Match exec "test %h = web1"', "Match canonical all", "Match final host web1", "Match localnetwork 192.0.2.0/24"]
    + [f"Match {one}" for one in ("tagged x", "command x", "version OpenSSH_9*", "sessiontype shell")],
)
def test_conditions_that_only_openssh_can_decide(empty_home: Path, block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ssh -G` decides them. Without OpenSSH, a host that such a block may change is refused, naming the line."""
    write(empty_home, config=f"{block}\n Port 2200\nHost *\n User ops\n")
    try:
        right: dict[str, str] | None = judge(empty_home, "web1")
    except subprocess.CalledProcessError:
        right = None  # this version of OpenSSH does not know the condition
    if right is None:
        with pytest.raises(UsageError, match="line 1"):
            host_options("web1")
    else:
        agrees(empty_home, "web1")
    without_openssh(monkeypatch)
    ssh_config._found.clear()
    with pytest.raises(UsageError, match="line 2: whether this line applies to web1 cannot be decided"):
        host_options("web1")
    assert host_options("web1", port=22).user == "ops", "the block changes nothing that is asked for"


def test_canonical_names_need_openssh(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CanonicalizeHostname changes names by DNS: without OpenSSH it is refused."""
    write(empty_home, config="CanonicalizeHostname yes\nCanonicalDomains example.com\n")
    without_openssh(monkeypatch)
    with pytest.raises(UsageError, match="cannot be decided without OpenSSH"):
        host_options("web1")


@both_readers
def test_the_inventorys_user_and_port_count_for_conditions(empty_home: Path) -> None:
    """They are given to OpenSSH like -l and -p."""
    write(empty_home, config="Match user deploy\n HostName 192.0.2.1\nHost *\n HostName 192.0.2.2\n Port 2200\n")
    assert host_options("web1", user="deploy").hostname == judge(empty_home, "web1", "-l", "deploy")["hostname"]
    assert host_options("web1").hostname == "192.0.2.2"
    assert host_options("web1", port=23).port == 23


@both_readers
@pytest.mark.parametrize(
    ("jump", "host", "port", "user"),
    [
        ("ops@[2001:db8::5]:2222", "2001:db8::5", 2222, "ops"),
        ("ssh://ops@bastion:2222", "bastion", 2222, "ops"),
        ("[2001:db8::5]", "2001:db8::5", 22, None),
    ],
)
def test_jump_hosts(empty_home: Path, jump: str, host: str, port: int, user: str | None) -> None:
    """A jump host with user, port and an IPv6 address in brackets, from ssh_config and from the inventory."""
    write(empty_home, config=f"Host web1\n ProxyJump {jump}\n")
    for target in (Target("web1", "web1"), Target("web2", "web2", proxy_jump=jump)):
        gateway = resolve(target).gateway
        assert isinstance(gateway, HostConnection)
        assert (gateway.host, gateway.port) == (host, port)
        assert user is None or gateway.user == user


@both_readers
def test_the_first_of_proxyjump_and_proxycommand_counts(empty_home: Path) -> None:
    """The one that is set first counts; a ProxyCommand gets its tokens, and keeps what looks like a comment."""
    write(
        empty_home,
        config="Host web1\n ProxyCommand nc -x %n %h %p %r # %%\nHost web2\n ProxyJump none\n"
        "Host *\n ProxyJump b\n User ops\n HostName 192.0.2.7\n Port 2200\n",
    )
    assert host_options("web1").proxy_command == "nc -x web1 192.0.2.7 2200 ops # %"
    assert host_options("web1").proxy_jump is None
    assert (host_options("web2").proxy_jump, host_options("web2").proxy_command) == (None, None)
    assert agrees(empty_home, "web3").proxy_jump == "b"


@both_readers
def test_variables_tokens_and_quotes_in_paths(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """${VARIABLES}, %-tokens, ~ and quotes are resolved in every path."""
    monkeypatch.setenv("KEYS", "/keys")
    write(
        empty_home,
        config="Host web1\n HostName 192.0.2.1\n Port 2200\n User ops\n IdentityFile ${HOME}/.ssh/k\n"
        ' IdentityFile "${KEYS}/my key %r@%h:%p"\n IdentityFile %d/.ssh/%n\n CertificateFile ~/c-%u\n'
        ' UserKnownHostsFile ~/.ssh/kh_%h "~/.ssh/kh two"\n IdentityAgent ~/agent\n RevokedHostKeys /etc/revoked\n'
        " GlobalKnownHostsFile none\nHost web2\n UserKnownHostsFile /dev/null\nHost web3\n IdentityAgent none\n"
        'Host web4\n IdentityAgent $KEYS\nHost web5\n UserKnownHostsFile "/a b"\n',
    )
    found = host_options("web1")
    ssh = empty_home / ".ssh"
    user = "root" if os.geteuid() == 0 else found.user
    assert found.identity_files == (ssh / "k", Path("/keys/my key ops@192.0.2.1:2200"), ssh / "web1")
    assert found.certificate_files == (empty_home / f"c-{user}",)
    assert found.user_known_hosts == (ssh / "kh_192.0.2.1", ssh / "kh two")
    assert found.system_known_hosts == ()
    assert found.identity_agent == str(empty_home / "agent")
    assert found.revoked_host_keys == Path("/etc/revoked")
    assert host_options("web2").user_known_hosts == (Path("/dev/null"),)
    assert host_options("web2").identity_files is None
    assert host_options("web3").identity_agent is None
    assert host_options("web4").identity_agent == "/keys"
    assert host_options("web5").user_known_hosts == (Path("/a b"),)
    assert host_options("web3").user_known_hosts == (ssh / "known_hosts", ssh / "known_hosts2")


@both_readers
def test_a_proxy_command_that_passes_a_descriptor_is_refused(empty_home: Path) -> None:
    """ProxyUseFdpass changes what a ProxyCommand does: it is refused, not ignored."""
    write(empty_home, config="Host web1\n ProxyCommand connect %h\n ProxyUseFdpass yes\n")
    with pytest.raises(UsageError, match="ProxyUseFdpass for web1"):
        host_options("web1")


@both_readers
@pytest.mark.parametrize("name", ["config", "more"])
def test_a_file_that_others_can_write_to_is_refused(empty_home: Path, name: str) -> None:
    """It names programs that we run: OpenSSH refuses such a file of the user, and what it includes, too."""
    write(empty_home, config="Include more\n", more="Port 2200\n")
    assert host_options("web1").port == 2200
    (empty_home / ".ssh" / name).chmod(0o664)
    write(empty_home, config="Include more\n\n")
    with pytest.raises(UsageError, match=rf"\.ssh/{name} cannot be used: bad owner or permissions"):
        host_options("web1")


@both_readers
def test_a_variable_that_is_not_set_is_named(empty_home: Path) -> None:
    """OpenSSH refuses it too."""
    write(empty_home, config="IdentityFile ${NO_SUCH_VARIABLE}/k\n")
    with pytest.raises(UsageError, match="NO_SUCH_VARIABLE"):
        host_options("web1")


@both_readers
@pytest.mark.parametrize("pattern", ["~/.ssh/conf_*", "conf_*", "conf_a conf_b", '"conf_a" "conf_b"'])
def test_include_accepts_globs_and_several_patterns(empty_home: Path, pattern: str) -> None:
    """Globs, the home folder of $HOME, relative names and several patterns."""
    write(
        empty_home,
        config=f"Include {pattern}\n",
        conf_a="Host web1\n  User a\n",
        conf_b="Host web1\n  User b\n  Port 2201\n",
    )
    assert (host_options("web1").user, host_options("web1").port) == ("a", 2201)


@both_readers
def test_a_file_that_includes_itself_is_refused(empty_home: Path) -> None:
    """OpenSSH refuses a circle of includes too."""
    write(empty_home, config="Include config\nUser me\n")
    with pytest.raises(UsageError, match="includes itself"):
        host_options("web1")


@pytest.mark.parametrize(
    "text", ["Host\n Port 1\n", "Foo bar\n", "Host web1\n Port\n", 'Host web1\n User "ops\n', "Port x\n"]
)
def test_a_syntax_error_names_file_and_line(empty_home: Path, text: str) -> None:
    """A configuration that OpenSSH refuses is a UsageError that names file and line."""
    write(empty_home, config=text)
    with pytest.raises(subprocess.CalledProcessError):
        judge(empty_home, "web1")
    with pytest.raises(UsageError, match=r"\.ssh/config.* line \d"):
        connect(Target("web1", "web1"), lock=False, who="test")


def test_files_that_change_nothing_start_no_process(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, and a file without a line that matters: the defaults of OpenSSH, without `ssh -G`."""
    right = judge_defaults("Web1")
    monkeypatch.setattr(ssh_config, "_SYSTEM", empty_home / "none")
    monkeypatch.setattr(subprocess, "Popen", None)
    assert host_options("Web1").hostname == right
    write(empty_home, config="# mine\n\nHost *\n SendEnv LANG LC_*\n HashKnownHosts yes\n GSSAPIAuthentication yes\n")
    assert (host_options("web1").port, host_options("web1").proxy_jump) == (22, None)
    write(empty_home, config="Host *\n SendEnv LANG\n Port 2200\n")
    with pytest.raises(TypeError):
        host_options("web1")


def judge_defaults(host: str) -> str:
    """The host name that OpenSSH uses without any file."""
    shown = subprocess.run(["ssh", "-F", "none", "-G", host], capture_output=True, text=True).stdout
    return next(line.split()[1] for line in shown.splitlines() if line.startswith("hostname "))


def test_each_host_is_looked_up_once(empty_home: Path) -> None:
    """Twenty threads that ask for one gateway start one process."""
    write(empty_home, config=f'Match exec "echo >>{empty_home}/asked"\n Port 2200\n')
    threads = [threading.Thread(target=host_options, args=("bastion",)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (empty_home / "asked").read_text() == "\n"


def test_a_command_of_match_exec_that_hangs_is_ended(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the processes it started, within a time limit."""
    monkeypatch.setattr(ssh_config, "_TIMEOUT", 0.5)
    write(empty_home, config=f'Match exec "echo $$ >{empty_home}/pid; sleep 1000"\n Port 2200\n')
    with pytest.raises(UsageError, match="did not answer within"):
        host_options("web1")
    number = int((empty_home / "pid").read_text())
    wait_for(lambda: not running(number), "the command has ended", 5)


def test_a_program_ssh_that_is_not_openssh_is_not_asked(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dropbear's client, for example, is called ssh too."""
    other = tmp_path / "bin" / "ssh"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\necho 'Dropbear SSH client' >&2\nexit 1\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", f"{other.parent}:{os.environ['PATH']}")
    write(empty_home, config="Host web1\n Port 2200\n")
    assert host_options("web1").port == 2200


def test_a_name_that_openssh_refuses_is_unreachable(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal that is not about the files is about the host."""
    other = tmp_path / "bin" / "ssh"
    other.parent.mkdir()
    other.write_text(
        "#!/bin/sh\n[ $1 = -V ] && echo OpenSSH_9.8 >&2\necho 'hostname contains invalid characters' >&2\nexit 255\n"
    )
    other.chmod(0o755)
    monkeypatch.setenv("PATH", f"{other.parent}:{os.environ['PATH']}")
    write(empty_home, config="Host web1\n Port 2200\n")
    with pytest.raises(Unreachable, match="hostname contains invalid characters") as raised:
        host_options("web1")
    assert isinstance(raised.value, ProvisionError)


@pytest.mark.root
def test_the_users_own_home_folder_is_read_by_openssh_itself(tmp_path: Path) -> None:
    """When $HOME is the home folder of the user database, nothing is copied: OpenSSH reads its usual files."""
    (tmp_path / ".ssh").mkdir(mode=0o700)
    (tmp_path / ".ssh" / "config").write_text("Include more\nMatch final all\n Port 2222\n")
    (tmp_path / ".ssh" / "more").write_text("Host web1\n User ops\n")
    (tmp_path / ".ssh" / "config").chmod(0o600)
    code = (
        "import tempfile; tempfile.TemporaryDirectory = None\n"
        "from provision.ssh.ssh_config import host_options\n"
        "found = host_options('web1')\n"
        "print(found.user, found.port, found.user_known_hosts[0])\n"
    )
    (tmp_path / "passwd").write_text(f"root:x:0:0:root:{tmp_path}:/bin/sh\n")
    script = 'mount --bind "$1/passwd" /etc/passwd && HOME=$1 exec "$2" -c "$3"'
    command = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        "sh",
        tmp_path,
        sys.executable,
        code,
    ]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.stdout == f"ops 2222 {tmp_path}/.ssh/known_hosts\n", done.stderr

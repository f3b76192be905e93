"""The lab: what its hosts and services offer, that labs are separate, and that nothing of a lab is left behind."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from provision_lab import INVENTORY, Lab, LabError, LabHost, network, processes, state
from provision_lab.harness import PROVISION, Harness, changed, inventory_of
from provision_lab.image import Image
from provision_lab.lab import sweep
from tests.support.labs import release
from tests.support.runs import applied, unchanged, without_s3
from tests.support.waiting import wait_for

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
DOCKER = ("docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin")


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A GitLab host; a runner with an os-release of Ubuntu; a runner with another sshd port and a sudo password."""
    return harness_factory(
        LabHost("gitlab"), LabHost("runner-1", ubuntu=True), LabHost("runner-2", sshd_port=2222, sudo="password")
    )


@pytest.fixture(scope="module")
def lab(harness: Harness) -> Lab:
    """The lab of the harness."""
    return harness.lab


def remains(lab: Lab) -> list[str]:
    """Everything on this machine that carries the lab's name."""
    found = [f"process {pid}" for pid in processes.of_lab(lab.folder)]
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(lab.folder) in line]
    bridge = network.bridge_name(lab.name)
    found += [line for line in _output("ip", "-br", "link").splitlines() if bridge in line]
    found += [line for line in _output("nft", "list", "tables").splitlines() if lab.name in line]
    found += [str(path) for path in state.root().glob(f"*{lab.name}*")]
    found += [str(path) for path in Path("/run/systemd/nspawn").rglob(f"*{lab.name}*")]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/provision-{lab.name}")]
    return found


def _output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout


def test_every_host_accepts_logins(lab: Lab) -> None:
    """SSH with strict host keys reaches each host. It has its own name and resolves the others'."""
    for host in lab.hosts:
        done = lab.ssh(
            host.name, "hostname && getent hosts gitlab.lab.test runner-1 && systemctl is-system-running --wait"
        )
        assert (done.returncode, done.stdout.split()[0], done.stdout.split()[-1]) == (0, host.name, "running"), done
        assert lab.hosts[0].address in done.stdout
    assert lab.is_up


def test_sudo_requires_a_password_where_wanted(lab: Lab) -> None:
    """sudo needs no password by default; the other host requires the lab's."""
    assert lab.ssh("gitlab", "sudo -n id -u").stdout == "0\n"
    assert lab.ssh("runner-2", "sudo -n id -u").returncode == 1
    assert lab.ssh("runner-2", "sudo -k -S -p '' id -u", stdin=lab.secret("sudo_password") + "\n").stdout == "0\n"


def test_an_independent_tool_gets_in(harness: Harness) -> None:
    """pytest-testinfra connects and sees the systems in the hosts' os-release."""
    for host in ("gitlab", "runner-1"):
        info = harness.host(host).system_info
        assert (info.distribution, info.codename) == release(harness.lab, host)
    assert info.distribution == "ubuntu"
    assert harness.host("runner-2", sudo=False).file("/etc/hosts").contains("gitlab.lab.test")


def test_secrets_are_the_owners_alone(lab: Lab) -> None:
    """Others can read no secret file, in the lab's folder or on the GitLab host."""
    names = [
        "api_token",
        "registry_password",
        "s3_access_key",
        "s3_secret_key",
        "sudo_password",
        "ca.key",
        "id_ed25519",
    ]
    modes = {name: (lab.folder / name).stat().st_mode & 0o777 for name in names}
    assert set(modes.values()) == {0o600}, modes
    seed = lab.machine("gitlab").root / "etc/gitlab-standin/seed.json"
    assert seed.stat().st_mode & 0o777 == 0o600
    assert lab.secret("api_token") in seed.read_text()


def test_the_certificate_is_the_cas(lab: Lab) -> None:
    """openssl accepts the GitLab host's certificate: signed by the CA, for its name and address."""
    live = lab.machine("gitlab").root / "etc/letsencrypt/live/gitlab.lab.test"
    argv = ["openssl", "verify", "-x509_strict", "-CAfile", str(lab.ca), "-purpose", "sslserver"]
    argv += [
        "-verify_hostname",
        "gitlab.lab.test",
        "-untrusted",
        str(live / "fullchain.pem"),
        str(live / "fullchain.pem"),
    ]
    assert _output(*argv).endswith("fullchain.pem: OK\n")
    assert lab.hosts[0].address in _output("openssl", "x509", "-in", str(live / "fullchain.pem"), "-noout", "-text")


def test_looking_changes_nothing(harness: Harness) -> None:
    """Logins, sudo and package queries change nothing in a snapshot; a change of one byte shows."""
    before = harness.snapshot("gitlab")
    assert harness.lab.ssh("gitlab", "sudo id; apt-cache policy docker.io; sudo ufw status").returncode == 0
    assert changed(before, harness.snapshot("gitlab")) == {}
    harness.lab.inside("gitlab", "chmod 600 /etc/hostname; echo x > /tmp/left; rm /etc/issue")
    assert list(changed(before, harness.snapshot("gitlab"))) == ["etc/hostname", "etc/issue", "tmp/left"]
    assert len(before) > 10_000


@pytest.mark.parametrize("host", ["runner-1", "gitlab"])
def test_docker_runs_inside(lab: Lab, host: str) -> None:
    """Docker comes from the lab's signed repository. It builds an image and runs it with a published port."""
    system, suite = release(lab, host)
    mirror = lab.mirrors(system)["docker"]
    source = f"Types: deb\nURIs: {mirror['url']}\nSuites: {suite}\nComponents: stable\nSigned-By: /etc/apt/keyrings/docker.asc\n"
    lab.inside(
        host, "mkdir -p /etc/apt/keyrings; cat > /etc/apt/keyrings/docker.asc", stdin=Path(mirror["key"]).read_text()
    )
    lab.inside(host, "cat > /etc/apt/sources.list.d/docker.sources", stdin=source)
    old = lab.inside(host, "apt-get update -q && apt-cache madison docker-ce | awk '{print $3}'").split()[-1]
    assert old.endswith(f"{suite}")
    lab.inside(host, f"apt-get install -qy docker-ce={old} {' '.join(DOCKER[1:])}")
    newer = lab.inside(host, "apt-get install -qy docker-ce && dpkg-query -W -f '${Version}' docker-ce").split()[-1]
    assert newer != old
    lab.inside(host, "mkdir /tmp/image && cp /bin/busybox /tmp/image")
    lab.inside(
        host, "cat > /tmp/image/Dockerfile", stdin='FROM scratch\nCOPY busybox /busybox\nENTRYPOINT ["/busybox"]\n'
    )
    lab.inside(host, "docker build -q -t tiny /tmp/image")
    assert lab.inside(host, "docker run --rm tiny echo hello") == "hello\n"
    assert lab.inside(host, "docker info -f '{{.Driver}}'") == "overlay2\n"
    lab.inside(host, "docker run -d -p 8123:80 tiny httpd -f -h /")
    address = lab.machine(host).host.address
    assert "200 OK" in lab.inside(
        "runner-2", f"curl -sI --retry 20 --retry-connrefused --retry-delay 1 http://{address}:8123/busybox"
    )


def test_the_distributions_own_docker_and_the_old_runner_are_there(lab: Lab) -> None:
    """Without other repositories, apt offers Debian's docker.io and a very old gitlab-runner."""
    policy = lab.inside("runner-2", "apt-get update -q >/dev/null; apt-cache policy docker.io gitlab-runner")
    assert re.search(r"Candidate: 2[6-9]\.", policy)
    assert "Candidate: 11.2.0" in policy


def test_an_unsigned_repository_is_refused(lab: Lab) -> None:
    """apt refuses a repository whose key is another's: the signatures are real."""
    suite = "{}/docker/linux/{} {}".format(lab.apt_url, *release(lab, "runner-2"))
    source = f"deb [signed-by=/usr/share/keyrings/lab-debian.asc] {suite} stable\n"
    lab.inside("runner-2", "cat > /etc/apt/sources.list.d/wrong.list", stdin=source)
    # sqv, the verifier of apt 3, says it in other words than gpgv.
    assert re.search(
        "NO_PUBKEY|Missing key", lab.inside("runner-2", "apt-get update 2>&1; rm /etc/apt/sources.list.d/wrong.list")
    )


def test_ufw_filters(lab: Lab) -> None:
    """ufw on a host closes a port and opens it again."""
    host = lab.machine("gitlab").host
    lab.inside("gitlab", "ufw allow 22/tcp && ufw --force enable")
    assert _reaches(lab, host.address, 22)
    lab.inside("gitlab", "systemd-run -q --unit=listener busybox httpd -f -p 8099")
    assert not _reaches(lab, host.address, 8099)
    lab.inside("gitlab", "ufw allow 8099/tcp")
    assert _reaches(lab, host.address, 8099)


def _reaches(lab: Lab, address: str, port: int) -> bool:
    probe = f"timeout 2 bash -c 'exec 3<>/dev/tcp/{address}/{port}'"
    return lab.ssh("runner-1", f"for i in 1 2 3; do {probe} && exit 0; done; exit 1").returncode == 0


def test_hosts_are_kept_apart(lab: Lab) -> None:
    """Restarting a service on one host does not affect the same service of another host."""
    script = "systemctl show -p MainPID --value ssh; systemctl show -p ControlGroup --value ssh; cat /proc/self/cgroup"
    here = lab.inside("runner-1", script)
    lab.inside("runner-2", "systemctl restart ssh")
    assert lab.inside("runner-1", script).split()[:2] == here.split()[:2]


def test_lab_toml_fits_the_lab_called_lab() -> None:
    """inventories/lab.toml equals the inventory of a lab called lab with three hosts."""
    lab = Lab(
        "lab",
        [LabHost("gitlab", "198.18.0.10"), LabHost("runner-1", "198.18.0.11"), LabHost("runner-2", "198.18.0.12")],
    )
    lab._record = state.Record("lab", network.FIXED["lab"], lab.hosts, lab.image, lab.server)
    static = tomllib.loads(INVENTORY.read_text("utf-8"))
    hosts = static.pop("hosts")
    made = inventory_of(lab)
    assert [host["address"] for host in made.pop("hosts").values()] == ["198.18.0.10", "198.18.0.11", "198.18.0.12"]
    assert (hosts["gitlab"]["address"], hosts["runner-[1:2]"]["address"]) == ("198.18.0.10", "198.18.0.[11:12]")
    assert made == static
    assert static["apt"] == lab.mirrors()
    assert static["registry"]["s3"]["regionendpoint"] == lab.s3_url
    assert static["ssh"] == {
        "user": "ubuntu",
        "identity_file": str(lab.identity_file),
        "known_hosts": str(lab.known_hosts),
    }


def test_up_again_is_quick_and_other_hosts_are_refused(lab: Lab) -> None:
    """`up` of a running lab changes nothing; with other hosts it is refused."""
    again = Lab(lab.name, lab.hosts, throwaway=True, image=lab.image)
    started = time.monotonic()
    assert again.up() is False
    assert time.monotonic() - started < 1
    with pytest.raises(LabError, match="differ from this request"):
        Lab(lab.name, [LabHost("another")], throwaway=True, image=lab.image).up()
    assert lab.is_up


def test_two_labs_stand_side_by_side_and_nothing_stays(lab: Lab, lab_factory: Callable[..., Lab]) -> None:
    """A second lab has its own network and keys; removing it leaves nothing and does not affect the first."""
    other = lab_factory(LabHost("gitlab"), LabHost("small", disk_mb=64))
    assert other.gateway != lab.gateway
    assert other.secret("api_token") != lab.secret("api_token")
    assert other.ssh("gitlab", "true").returncode == 0
    assert "No space left" in other.ssh("small", "head -c 80M /dev/zero > ~/big").stderr
    assert len(remains(other)) > 10
    other.down()
    assert remains(other) == []
    assert lab.is_up
    other.down()  # again, with nothing there


def test_prepared_hosts_need_no_change(harness_factory: Callable[..., Harness]) -> None:
    """They boot converged, under any name and with a sudo password, and their services answer: all that is left is to register.

    Their secrets and their authority are those of all labs with prepared hosts; each lab has addresses and SSH keys of its own.
    """
    runner = LabHost("another", sshd_port=2222, sudo="password", prepared="runner")
    subnet = f"198.18.{200 + os.getpid() % 50}.0/24"  # another one than where they were prepared
    harness = without_s3(harness_factory(LabHost("gitlab", prepared="server"), runner, subnet=subnet))
    unchanged(harness, "server")
    unchanged(harness, "firewall", "docker", "runner")
    assert {one["task"] for one in applied(harness, "all").of("change")} == {"register"}
    assert harness.lab.secret("api_token") == (harness.lab.prepared / "lab/api_token").read_text()
    addressed = harness.lab.inside("another", "apt-get update -q && cat /etc/apt/sources.list.d/*.sources")
    assert set(re.findall(r"http://(198\.18\.\d+\.\d+):", addressed)) == {harness.lab.gateway}


@pytest.fixture
def beyond() -> Iterator[tuple[str, str, Path]]:
    """A web server in a network behind this machine: this machine's address there, the server's, its folder.

    The server has no route to a lab: it can answer this machine alone.
    """
    number = os.getpid() % 64 * 4
    here, there, link = f"192.0.2.{number + 1}", f"192.0.2.{number + 2}", f"beyond-{number}"
    with TemporaryDirectory() as folder, Path(folder, "log").open("w") as log:
        argv = (
            "setpriv",
            "--pdeathsig=KILL",
            "unshare",
            "-n",
            sys.executable,
            "-m",
            "http.server",
            "-d",
            folder,
            "8000",
        )
        server = subprocess.Popen(argv, stdout=log, stderr=log)
        inside = ("nsenter", "-t", str(server.pid), "-n", "ip")
        try:
            networks = [f"/proc/{one}/ns/net" for one in ("self", server.pid)]
            wait_for(lambda: len(set(map(os.readlink, networks))) == 2, "the server has a network of its own")
            _output("ip", "link", "add", link, "type", "veth", "peer", "name", "out", "netns", str(server.pid))
            _output("ip", "address", "add", f"{here}/30", "dev", link)
            _output("ip", "link", "set", link, "up")
            _output(*inside, "address", "add", f"{there}/30", "dev", "out")
            _output(*inside, "link", "set", "out", "up")
            yield here, there, Path(folder)
        finally:
            server.kill()  # its network ends with it
            server.wait()


def test_hosts_reach_out_where_asked_to(
    lab: Lab, lab_factory: Callable[..., Lab], beyond: tuple[str, str, Path]
) -> None:
    """With `internet`, a host reaches other networks under this machine's address; afterwards nft and forwarding are as before."""
    here, there, folder = beyond
    folder.joinpath("file").write_text("reached\n")
    url = f"http://{there}:8000/file"
    before, shared = FORWARDING.read_text(), reaching_out()
    out = lab_factory(LabHost("gitlab"), internet=True, image=Image())
    assert f"table ip provision-{out.name}" in _output("nft", "list", "tables")
    assert out.inside("gitlab", f"curl -s --retry 10 --retry-connrefused {url}") == "reached\n"
    assert f"{here} - - " in folder.joinpath("log").read_text()
    assert "http://deb.debian.org/debian/dists/trixie/InRelease" in out.inside("gitlab", "apt-get update --print-uris")
    assert lab.inside("gitlab", f"curl -s --max-time 1 {url} || echo no answer") == "no answer\n"
    out.down()
    assert remains(out) == []
    if not shared and not reaching_out():
        assert FORWARDING.read_text() == before


def reaching_out() -> bool:
    """Whether any lab has internet access now."""
    return any(record.internet for name in state.names() if (record := state.load(name)))


OWNER = """
import sys, time
from provision_lab import Lab, LabHost
lab = Lab(sys.argv[1], [LabHost("gitlab")], throwaway=True)
lab.up()
print("up", flush=True)
time.sleep(600)
"""


def _owned(name: str) -> subprocess.Popen[str]:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, name], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    return owner


def _gone(lab: Lab, deadline: float = 15) -> list[str]:
    ends = time.monotonic() + deadline
    while (left := remains(lab)) and time.monotonic() < ends:
        time.sleep(0.05)
    return left


def test_a_lab_goes_with_its_killed_owner() -> None:
    """kill -9 of the process that owns a lab: its keeper removes the lab."""
    name = f"k{os.getpid()}"
    owner = _owned(name)
    lab = Lab.find(name)
    assert lab is not None
    assert lab.is_up
    owner.send_signal(signal.SIGKILL)
    owner.wait(10)
    assert _gone(lab) == []


def test_leftovers_of_a_dead_owner_are_swept_and_living_labs_are_not(lab: Lab) -> None:
    """Owner and keeper are killed: the next lab that comes up or goes down removes the leftovers only.

    Another test that brings up a lab may remove them first.
    """
    name = f"s{os.getpid()}"
    owner = _owned(name)
    dead = Lab.find(name)
    assert dead is not None
    (keeper,) = processes.of_service(dead.folder, "keeper")
    os.kill(keeper, signal.SIGKILL)
    owner.send_signal(signal.SIGKILL)
    owner.wait(10)
    swept = sweep()
    assert swept in ([name], [])
    assert _gone(dead) == []
    assert lab.is_up


def test_a_failed_boot_has_a_reason_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """sshd cannot start: the error contains the end of the journal, and nothing is left behind."""
    from provision_lab import machine

    monkeypatch.setattr(machine, "_BOOT", 8)
    lab = Lab(f"f{os.getpid()}", [LabHost("gitlab", sshd_port=99999)], throwaway=True)
    with pytest.raises(LabError, match="sshd does not answer") as caught:
        lab.up()
    assert "Failed to start ssh.service" in str(caught.value)
    assert remains(lab) == []


@pytest.mark.parametrize("moment", [0.05, 0.2, 0.4, 0.8, 1.2])
def test_killed_at_any_moment_down_cleans_by_name(moment: float) -> None:
    """`provision lab up` is killed with SIGKILL; `provision lab down` removes what exists."""
    name = f"x{os.getpid()}"
    lab = Lab(name, ())
    up = subprocess.Popen(
        [*PROVISION, "lab", "up", "--name", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    ends = time.monotonic() + 20
    while not lab.folder.exists() and time.monotonic() < ends:
        time.sleep(0.005)
    time.sleep(moment)  # where the kill hits is the point: any moment has to do
    up.kill()
    up.wait(10)
    done = subprocess.run(
        [*PROVISION, "lab", "down", "--name", name], capture_output=True, text=True, timeout=60, check=True
    )
    assert f"lab {name} is removed" in done.stdout
    assert remains(lab) == []


def test_the_command_line_from_up_to_down(tmp_path: Path) -> None:
    """up, status, ssh and down for another inventory, whose names and paths are valid in the lab."""
    name = f"c{os.getpid()}"
    inventory = tmp_path / "estate.toml"
    inventory.write_text(ESTATE)

    def provision(*arguments: str) -> str:
        command = [*PROVISION, *arguments]  # whatever the umask
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, umask=0o077)
        assert done.returncode == 0, done
        return done.stdout

    try:
        output = provision("lab", "up", "-i", str(inventory), "--name", name)
        overlay = state.root() / name / "overlay.toml"
        assert f"provision all -i {inventory} -i {overlay} --check" in output
        assert "is already up" in provision("lab", "up", "-i", str(inventory), "--name", name)
        assert "ci-02" in provision("lab", "status")
        resolved = provision("inventory", "-i", str(inventory), "-i", str(overlay))
        assert "203.0.113" not in resolved
        assert "bastion" not in resolved
        found = Lab.find(name)
        assert found is not None
        addresses = "getent hosts git.example.com registry.example.com | cut -d ' ' -f 1 | sort -u"
        assert provision("lab", "ssh", "--name", name, "ci-02", addresses).strip() == found.hosts[0].address
        pair = provision("lab", "ssh", "--name", name, "git", "sudo", "ls", "/etc/gitlab/ssl").split()
        assert pair == ["registry.example.com.crt", "registry.example.com.key"]
    finally:
        output = provision("lab", "down", "--name", name)
    assert "is removed: its processes, mounts, bridge and files" in output
    assert remains(found) == []
    assert f"there is no lab {name}" in provision("lab", "down", "--name", name)


ESTATE = """
[ssh]
user = "admin"
proxy_jump = "bastion"
[hosts.git]
address = "203.0.113.10"
groups = ["gitlab"]
host_key = "SHA256:abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ"
[hosts."ci-[01:02]"]
address = "203.0.113.[11:12]"
groups = ["runners"]
[gitlab]
external_url = "https://git.example.com"
api_token = { env = "GITLAB_TOKEN" }
[registry]
external_url = "https://registry.example.com"
"""


def test_s3_keeps_what_it_is_given_and_refuses_wrong_keys(lab: Lab) -> None:
    """The real client stores and reads; wrong keys, no signature and no bucket are refused with S3's errors."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ClientError

    def client(access: str, secret: str) -> "boto3.client":
        config = Config(signature_version="s3v4", retries={"max_attempts": 1})
        keys = {"aws_access_key_id": access, "aws_secret_access_key": secret}
        return boto3.client("s3", endpoint_url=lab.s3_url, region_name="us-east-1", config=config, **keys)

    access, secret = lab.secret("s3_access_key"), lab.secret("s3_secret_key")
    real, data = client(access, secret), os.urandom(6 << 20)
    real.put_object(Bucket="registry", Key="a b/ü+c~d", Body=data)
    got = real.get_object(Bucket="registry", Key="a b/ü+c~d")["Body"].read()
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
    for wrong, code in (
        (client("wrong", secret), "InvalidAccessKeyId"),
        (client(access, "wrong"), "SignatureDoesNotMatch"),
    ):
        with pytest.raises(ClientError, match=code):
            wrong.list_objects_v2(Bucket="registry")
    with pytest.raises(ClientError, match="NoSuchBucket"):
        real.list_objects_v2(Bucket="elsewhere")
    presigned = real.generate_presigned_url("get_object", Params={"Bucket": "registry", "Key": "a b/ü+c~d"})
    assert (
        _output("curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", presigned) == f"200 {len(data)}"
    )
    assert "AccessDenied" in _output("curl", "-s", f"{lab.s3_url}/registry")


def test_services_stop_and_start(lab: Lab) -> None:
    """S3 and apt can be stopped and started, for tests of what happens then."""
    for service, url in (("s3", lab.s3_url), ("apt", lab.apt_url)):
        lab.stop(service)
        assert subprocess.run(("curl", "-s", url), check=False).returncode == 7
        lab.start(service)
        assert subprocess.run(("curl", "-s", "-o", "/dev/null", url), check=False).returncode == 0


def test_every_host_has_a_cgroup_of_its_own(lab: Lab) -> None:
    """A scope where systemd runs on this machine; elsewhere the lab makes a cgroup in every hierarchy.

    Source: systemd's src/nspawn/nspawn-register.c, allocate_scope.
    """
    systemd = Path("/run/systemd/system").is_dir()
    for machine in lab.machines:
        lines = Path(f"/proc/{machine.leader}/cgroup").read_text().splitlines()
        found = {name: f"{path}/" for _, name, path in (line.split(":", 2) for line in lines)}
        if systemd:
            found = {"systemd": found.get("name=systemd", found.get("", ""))}
        own = f"/{machine.name}.scope/" if systemd else f"/{machine.cgroup}/{machine.host.name}/"
        assert [name for name, path in found.items() if own not in path] == [], lines

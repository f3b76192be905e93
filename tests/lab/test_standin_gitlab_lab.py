"""The gitlab-ce stand-in on a real host: installed by apt, reconfigured, pushed to, broken and upgraded.

The tests run in order; each starts where the one before ended.
"""

import json
import re
import threading
import time
from contextlib import contextmanager

import boto3
import pytest

from provision_lab import LabHost
from provision_lab.run import LabError
from tests.support.labs import release
from tests.support.waiting import wait_for

LIVE = "/etc/letsencrypt/live/gitlab.lab.test"
URL = "https://gitlab.lab.test"
LOCK = "/opt/gitlab/embedded/cookbooks/cache/cinc-client-running.pid"

PUSH = """
import base64, hashlib, json, re, ssl, sys, urllib.error, urllib.request

host, image = "https://gitlab.lab.test:5555", "root/hello_hapi/tiny"
context = ssl.create_default_context(cafile="/root/lab-ca.pem")
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

def ask(method, url, data=None, **headers):
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        answer = urllib.request.urlopen(request, context=context)
    except urllib.error.HTTPError as error:
        answer = error
    return answer.status, answer.headers, answer.read()

status, headers, _ = ask("GET", host + "/v2/")
realm = re.search('realm="(.*?)"', headers["WWW-Authenticate"])[1]
login = base64.b64encode(b"root:" + sys.stdin.readline().strip().encode()).decode()
scope = f"{realm}?service=container_registry&scope=repository:{image}:push,pull,delete"
status, _, body = ask("GET", scope, Authorization="Basic " + login)
assert status == 200, body
bearer = {"Authorization": "Bearer " + json.loads(body)["token"]}

def push(blob):
    status, headers, body = ask("POST", f"{host}/v2/{image}/blobs/uploads/", b"", **bearer)
    assert status == 202, (status, body)
    digest = "sha256:" + hashlib.sha256(blob).hexdigest()
    place = headers["Location"] + ("&" if "?" in headers["Location"] else "?") + "digest=" + digest
    status, _, body = ask("PUT", place, blob, **bearer, **{"Content-Type": "application/octet-stream"})
    assert status == 201, (status, body)
    return {"size": len(blob), "digest": digest}

layer, config = push(b"layer" * 1000), push(b'{"os":"linux","created":"2026-01-02T03:04:05Z"}')
config["mediaType"] = "application/vnd.docker.container.image.v1+json"
layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}).encode()
address = f"{host}/v2/{image}/manifests/v1"
status, _, body = ask("PUT", address, manifest, **bearer, **{"Content-Type": MANIFEST})
assert status == 201, (status, body)
status, _, body = ask("GET", address, **bearer, Accept=MANIFEST)
assert (status, body) == (200, manifest)
status, _, body = ask("GET", f"{host}/v2/{image}/blobs/{layer['digest']}", **bearer)
assert (status, body) == (200, b"layer" * 1000)
print(layer["digest"])
"""


class Server:
    """The GitLab host, used as an administrator would."""

    def __init__(self, lab):
        self.lab = lab
        self.root = lab.machine("gitlab").root
        self.rb = self.root / "etc/gitlab/gitlab.rb"

    def run(self, script, **options):
        """Output and errors of a script that runs as root. Raises LabError when it fails."""
        return self.lab.inside("gitlab", f"exec 2>&1\n{script}", **options)

    def refused(self, script):
        """The output of a script that must fail with exit code 1."""
        return self.run(f"{script}; [ $? = 1 ]")

    def reconfigure(self):
        """A reconfigure that must succeed."""
        output = self.run("gitlab-ctl reconfigure")
        assert output.splitlines()[-1] == "gitlab Reconfigured!"
        return output

    def code(self, url):
        """The HTTP status of a URL, 000 when it does not answer."""
        return self.run(f"curl -s -o /dev/null -w '%{{http_code}}' --cacert /root/lab-ca.pem {url} || true")

    def wait_for(self, wanted, url=f"{URL}:5555/v2/", seconds=20):
        """Waits until a URL answers with this status."""
        wait_for(lambda: self.code(url) == wanted, f"{url} answers {wanted}", seconds)

    def pids(self):
        """The process of each running service."""
        return dict(re.findall(r"^run: ([\w-]+): \(pid (\d+)\)", self.run("gitlab-ctl status; true"), re.MULTILINE))

    def logs(self):
        """How often it was reconfigured."""
        return len(list((self.root / "var/log/gitlab/reconfigure").glob("*.log")))

    def objects(self):
        """The names of the objects in the lab's bucket."""
        keys = {"aws_access_key_id": "s3_access_key", "aws_secret_access_key": "s3_secret_key"}
        secrets = {name: self.lab.secret(key) for name, key in keys.items()}
        client = boto3.client("s3", endpoint_url=self.lab.s3_url, region_name=self.lab.server.region, **secrets)
        return [one["Key"] for one in client.list_objects_v2(Bucket=self.lab.server.bucket)["Contents"]]

    def append(self, text):
        """Adds a line to gitlab.rb."""
        self.rb.write_text(self.rb.read_text() + text)


@pytest.fixture(scope="module")
def server(lab_factory):
    """A host with the lab's GitLab repository, but without GitLab."""
    lab = lab_factory(LabHost("gitlab"))
    one = Server(lab)
    system, codename = release(lab, "gitlab")
    mirror = lab.mirrors(system)["gitlab"]
    (one.root / "usr/share/keyrings/gitlab.asc").write_text((lab.folder / "gitlab.asc").read_text())
    source = f"deb [signed-by=/usr/share/keyrings/gitlab.asc] {mirror['url']} {codename} main\n"
    (one.root / "etc/apt/sources.list.d/gitlab.list").write_text(source)
    (one.root / "root/lab-ca.pem").write_text(lab.ca.read_text())
    (one.root / "root/push.py").write_text(PUSH)
    one.run("apt-get update -q")
    return one


def test_installing_without_a_url_writes_gitlab_rb_and_starts_nothing(server):
    """Only root can read gitlab.rb; the hint gives the next step; nothing was reconfigured."""
    printed = server.run("DEBIAN_FRONTEND=noninteractive apt-get install -qy gitlab-ce=18.11.5-ce.0")
    assert "sudo gitlab-ctl reconfigure" in printed
    assert server.rb.stat().st_mode & 0o777 == 0o600
    assert "external_url 'http://gitlab.example.com'\n" in server.rb.read_text()
    assert server.run("gitlab-ctl status") == ""
    assert not (server.root / "var/opt/gitlab/nginx").exists()


def test_https_without_a_certificate_asks_lets_encrypt_in_vain(server):
    """letsencrypt['enable'] is nil and the files are missing: the run fails and names the host."""
    server.rb.write_text(server.rb.read_text().replace("http://gitlab.example.com", URL))
    printed = server.refused("gitlab-ctl reconfigure")
    assert "There was an error running gitlab-ctl reconfigure:\n\nletsencrypt_certificate[gitlab.lab.test]" in printed


def test_push_and_pull_over_tls_into_s3(server):
    """The first complete configuration: real nginx, registry and tokens, blobs in the bucket."""
    lab = server.lab
    s3 = {"accesskey": lab.secret("s3_access_key"), "secretkey": lab.secret("s3_secret_key")}
    s3 |= {"bucket": lab.server.bucket, "region": lab.server.region, "regionendpoint": lab.s3_url}
    storage = ", ".join(f"'{key}' => '{value}'" for key, value in s3.items())
    server.append(
        f"""
letsencrypt['enable'] = false
nginx['ssl_certificate'] = "{LIVE}/fullchain.pem"
nginx['ssl_certificate_key'] = "{LIVE}/privkey.pem"
registry_external_url '{URL}:5555'
registry_nginx['ssl_certificate'] = "{LIVE}/fullchain.pem"
registry_nginx['ssl_certificate_key'] = "{LIVE}/privkey.pem"
registry['nginx']['ssl_certificate'] = "/ignored/before/19.2.pem"
registry['storage'] = {{ 's3' => {{ {storage} }}, 'redirect' => {{ 'disable' => true }} }}
"""
    )
    assert "Deprecations" not in server.reconfigure()
    server.wait_for("401")
    server.wait_for("200", f"{URL}/users/sign_in")
    digest = server.run("python3 /root/push.py", stdin=lab.secret("registry_password") + "\n").strip()
    assert any(digest.partition(":")[2] in name for name in server.objects())


def test_config_yml_has_the_storage_as_json(server):
    """As in gitlab.rb, with omnibus's cache and delete, readable by the registry and root."""
    path = server.root / "var/opt/gitlab/registry/config.yml"
    line = next(line for line in path.read_text().splitlines() if line.startswith("storage: "))
    storage = json.loads(line.removeprefix("storage: "))
    assert storage["s3"]["bucket"] == server.lab.server.bucket
    assert storage["delete"] == {"enabled": True}
    assert path.stat().st_mode & 0o007 == 0


def test_reconfiguring_again_restarts_nothing(server):
    """Nothing differs: every process is the same; the run wrote a log."""
    before, logs = server.pids(), server.logs()
    server.reconfigure()
    assert {"gitlab-workhorse", "nginx", "postgresql", "puma", "redis", "registry", "sidekiq"} <= set(before)
    assert len(before) == 16
    assert server.pids() == before
    assert server.logs() == logs + 1


def test_the_api_lists_what_was_pushed(server):
    """Repository and tag, through nginx with the lab's token; a deleted tag is gone."""
    token = server.lab.secret("api_token")
    api = f"curl -sf --cacert /root/lab-ca.pem -K - {URL}/api/v4/projects/root%2Fhello_hapi/registry/repositories"
    key = f'header = "PRIVATE-TOKEN: {token}"\n'
    found = json.loads(server.run(f"{api}?tags=true", stdin=key))
    assert [(one["path"], [tag["name"] for tag in one["tags"]]) for one in found] == [("root/hello_hapi/tiny", ["v1"])]
    tag = f"{api}/{found[0]['id']}/tags/v1"
    details = json.loads(server.run(tag, stdin=key))
    assert (details["total_size"], details["created_at"]) == (5000, "2026-01-02T03:04:05Z")
    server.run(f"{tag} -X DELETE", stdin=key)
    assert json.loads(server.run(f"{api}/{found[0]['id']}/tags", stdin=key)) == []


def test_health_is_for_localhost(server):
    """200 from the host itself, 404 through its public address."""
    assert server.code(f"--resolve gitlab.lab.test:443:127.0.0.1 {URL}/-/health") == "200"
    assert server.code(f"{URL}/-/health") == "404"


@pytest.mark.parametrize("change", ["registry_external_url '{0}:5556'", "gitlab_rails['time_zone'] = 'UTC'"])
def test_everything_behind_workhorse_is_502_while_rails_boots(server, change):
    """Puma is restarted by a change of gitlab.yml: the registry answers, the rest does not, status says run.

    Source: workhorse's routes.go, badgateway and staticpages; omnibus-gitlab's gitlab-rails.rb, whose gitlab.yml restarts Puma.
    """
    server.wait_for("200", f"{URL}/users/sign_in")
    good, before = server.rb.read_text(), server.pids()
    switch = server.root / "etc/gitlab-standin/rails-boot-seconds"
    switch.write_text("4")
    server.append(change.format(URL) + "\n")
    server.reconfigure()
    here = "--connect-to ::127.0.0.1:"
    answers = {
        path: server.run(f"curl -s --cacert /root/lab-ca.pem {here} -w ' %{{http_code}} %{{content_type}}' {URL}{path}")
        for path in (
            "/-/readiness",
            "/-/health",
            "/api/v4/version",
            "/jwt/auth?service=container_registry",
            "/users/sign_in",
        )
    }
    port = 5556 if "5556" in change else 5555
    assert server.code(f"{URL}:{port}/v2/") == "401"
    after = server.pids()
    assert after["puma"] != before["puma"]
    page = "<title>GitLab is not responding (502)</title></head></html>\n 502 text/html"
    assert answers["/-/readiness"] == '{"error":"Bad Gateway","status":502}\n 502 application/json'
    assert answers["/-/health"] == "Bad Gateway\n 502 text/plain"
    assert answers["/api/v4/version"] == "GitLab is not responding 502 text/plain"
    assert answers["/jwt/auth?service=container_registry"].endswith(page)
    assert answers["/users/sign_in"].endswith(page)
    server.wait_for("200", f"{here} {URL}/-/readiness")
    assert server.pids() == after
    switch.unlink()
    server.rb.write_text(good)
    server.reconfigure()
    server.wait_for("200", f"{URL}/users/sign_in")


def test_an_upgrade_does_not_skip_a_required_stop(server):
    """dpkg's error names the script alone; the old version runs: omnibus-gitlab's preinst.erb."""
    before = server.pids()
    printed = server.run("DEBIAN_FRONTEND=noninteractive apt-get install -qy gitlab-ce || echo code $?")
    assert (
        "gitlab preinstall: It is required to upgrade to the latest 19.2.x version first before proceeding." in printed
    )
    # dpkg 1.22 and 1.23 name the script in different words.
    assert re.search("package (pre-installation|preinst maintainer) script subprocess", printed)
    assert printed.splitlines()[-1] == "code 100"
    assert server.pids() == before


def test_an_upgrade_checks_the_configuration(server):
    """check-config of the installed package knows what the next release removes: what was reconfigured counts."""
    good = server.rb.read_text()
    server.append("spamcheck['enable'] = false\n")
    server.reconfigure()
    printed = server.run("DEBIAN_FRONTEND=noninteractive apt-get install -qy gitlab-ce=19.2.4-ce.0 || echo code $?")
    assert "* spamcheck has been deprecated since 19.0 and was removed in 19.0." in printed
    assert printed.splitlines()[-1] == "code 100"
    server.rb.write_text(good)
    server.reconfigure()
    assert server.run("gitlab-ctl check-config --version=19.2") == ""


def test_an_older_version_is_apts_matter(server):
    """apt refuses it without --allow-downgrades; the package itself does not."""
    printed = server.run("DEBIAN_FRONTEND=noninteractive apt-get install -qy gitlab-ce=18.0.0-ce.0 || echo code $?")
    assert "Packages were downgraded and -y was used without --allow-downgrades" in printed


def test_a_registry_without_a_database_marks_its_storage(server):
    """Once it starts with images: 18.11 has no database by default. A push writes no lock file."""
    lock = "docker/registry/lockfiles/filesystem-in-use"
    assert lock not in server.objects()
    server.run("gitlab-ctl restart registry")
    server.wait_for("401")
    assert lock in server.objects()


def test_an_upgrade_reconfigures_and_external_url_overwrites(server):
    """EXTERNAL_URL of apt's environment is written to gitlab.rb; services run the new version."""
    logs = server.logs()
    server.rb.write_text(server.rb.read_text().replace("/ignored/before/19.2.pem", f"{LIVE}/fullchain.pem"))
    command = f"EXTERNAL_URL={URL}/ DEBIAN_FRONTEND=noninteractive apt-get install -qy gitlab-ce"
    printed = server.run(f"{command}=19.2.4-ce.0")
    assert "gitlab preinstall: Automatically backing up only the GitLab SQL database" in printed
    assert "gitlab Reconfigured!" in printed
    assert "registry_nginx has been deprecated. Please use registry['nginx'] instead." in printed
    assert f"external_url '{URL}/'\n" in server.rb.read_text()
    assert server.logs() == logs + 1
    server.wait_for("401")
    # 19 prefers the database, and goes on without it where there are images.
    assert "falling back to legacy metadata" in (server.root / "var/log/gitlab/registry/current").read_text()
    assert "gitlab Reconfigured!" in server.run(command)
    server.wait_for("401")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("registri['enable'] = true", "Reading unsupported config value registri."),
        ("registry['storage'] = {", "/etc/gitlab/gitlab.rb:"),
        ("registry_external_url 'gitlab.lab.test:5555'", "GitLab Container Registry external URL must include"),
        ("mattermost['enable'] = true", "Removed configurations found in gitlab.rb. Aborting reconfigure."),
    ],
)
def test_a_bad_gitlab_rb_changes_nothing(server, line, message):
    """Exit code 1, the message under its headline, the services unchanged."""
    good, before = server.rb.read_text(), server.pids()
    server.append(f"{line}\n")
    printed = server.refused("gitlab-ctl reconfigure")
    server.rb.write_text(good)
    assert f"There was an error running gitlab-ctl reconfigure:\n\n{message}" in printed
    assert "Reconfigured!" not in printed
    assert server.pids() == before


def test_show_config_checks_without_changing(server):
    """Exit code 0 for a valid file, 1 for an invalid one; no log or other file is written."""
    logs = server.logs()
    assert f'"registry_external_url": "{URL}:5555"' in server.run("gitlab-ctl show-config")
    good = server.rb.read_text()
    server.append("registri['enable'] = true\n")
    assert "Reading unsupported config value registri." in server.refused("gitlab-ctl show-config")
    server.rb.write_text(good)
    assert server.logs() == logs


def test_switched_to_fail(server):
    """The next reconfigure fails once with the given message; late: after everything was done."""
    for name in ("fail-next-reconfigure", "fail-next-reconfigure-late"):
        (server.root / "etc/gitlab-standin" / name).write_text("the disk is on fire")
        assert "\n\nthe disk is on fire\n" in server.refused("gitlab-ctl reconfigure")
        server.reconfigure()


def test_switched_to_be_slow(server):
    """A reconfigure takes the given time."""
    switch = server.root / "etc/gitlab-standin/reconfigure-seconds"
    switch.write_text("1.5")
    started = time.monotonic()
    server.reconfigure()
    switch.unlink()
    assert time.monotonic() - started > 1.5


@contextmanager
def held_lock(server):
    """Another run holds the lock, for three seconds."""
    holder = threading.Thread(target=server.run, args=("/opt/gitlab/bin/standin-hold-lock 3",))
    holder.start()
    wait_for(lambda: not server.run(f"flock -n {LOCK} echo free; true"), "the lock is held")
    try:
        yield
    finally:
        holder.join()


def test_a_second_run_waits_for_the_lock(server):
    """Its log has that another run holds the lock; it continues when that has ended. show-config waits as well."""
    with held_lock(server):
        started = time.monotonic()
        server.run("gitlab-ctl show-config")
        assert time.monotonic() - started > 1
    words = "is running, will wait for it to finish and then run."
    with held_lock(server):
        assert words not in server.reconfigure()
    newest = sorted((server.root / "var/log/gitlab/reconfigure").glob("*.log"))[-1]
    assert words in newest.read_text()


def test_status_sums_up_what_is_down(server):
    """A stopped service has its line and its 3; start runs it again."""
    server.run("gitlab-ctl stop registry")
    printed = server.run("gitlab-ctl status; echo $?")
    assert re.search(r"^down: registry: \d+s, normally up; run: log: ", printed, re.MULTILINE)
    assert printed.splitlines()[-1] == "3"
    server.run("gitlab-ctl start && gitlab-ctl status registry")


def test_a_new_certificate_is_served_after_hup_only(server):
    """Reconfigure sees no difference; hup makes nginx reload the files."""
    fullchain, key = f"{server.root}{LIVE}/fullchain.pem", f"{LIVE}/privkey.pem"
    served = "openssl s_client -connect gitlab.lab.test:5555 </dev/null 2>/dev/null | openssl x509 -noout -serial"
    before = server.run(served)
    server.run(
        f"cp -p {LIVE}/fullchain.pem /root/kept.pem && openssl req -x509 -key {key} -subj /CN=gitlab.lab.test "
        f"-set_serial 4711 -days 1 -out {LIVE}/fullchain.pem"
    )
    server.reconfigure()
    assert server.run(served) == before
    server.run("gitlab-ctl hup nginx")
    wait_for(lambda: server.run(served) == "serial=1267\n", f"{fullchain} is served", 10)
    server.run(f"cp -p /root/kept.pem {LIVE}/fullchain.pem && gitlab-ctl hup nginx && gitlab-ctl hup registry")
    server.wait_for("401")


def test_wrong_s3_keys_stop_the_registry(server):
    """It reads lock files in its storage when it starts, since GitLab 18.9: the driver's error is in its log."""
    good = server.rb.read_text()
    server.rb.write_text(good.replace(server.lab.secret("s3_secret_key"), "wrong"))
    assert "STDOUT: timeout: down: registry: " in server.refused("gitlab-ctl reconfigure")
    log = (server.root / "var/log/gitlab/registry/current").read_text()
    assert "could not check if filesystem metadata is locked" in log
    assert "api error SignatureDoesNotMatch" in log
    server.rb.write_text(good)
    server.reconfigure()
    server.wait_for("401")


def test_a_registry_that_cannot_start_fails_the_reconfigure(server):
    """In runit's words, after the time that it waits; its log has the reason."""
    good = server.rb.read_text()
    server.append("registry['storage'] = { 'nonsense' => {} }\n")
    (server.root / "etc/gitlab-standin/sv-wait-seconds").write_text("1.5")
    printed = server.refused("gitlab-ctl reconfigure")
    assert "STDOUT: timeout: down: registry: " in printed
    assert "nonsense" in (server.root / "var/log/gitlab/registry/current").read_text()
    server.rb.write_text(good)
    server.reconfigure()
    server.wait_for("401")


def test_a_missing_certificate_keeps_nginx_down(server):
    """The reconfigure succeeds; status and nginx's log show the error."""
    good = server.rb.read_text()
    server.append("registry['nginx']['ssl_certificate'] = '/nowhere.pem'\n")
    server.reconfigure()
    # It is started again every second, and is up for moments: one output is read, its exit code with it.
    printed = server.run(
        "for _ in $(seq 60); do printed=$(gitlab-ctl status) && code=0 || code=$?; "
        "case $printed in *'down: nginx'*) break ;; esac; sleep 0.5; done; echo \"$printed\"; echo $code"
    )
    assert re.search(r"^down: nginx: \d+s, normally up", printed, re.MULTILINE)
    assert printed.splitlines()[-1] == "3"
    assert "/nowhere.pem" in (server.root / "var/log/gitlab/nginx/current").read_text()
    server.rb.write_text(good)
    server.reconfigure()
    server.wait_for("401")


def test_no_secret_in_logs_or_arguments(server):
    """Only gitlab.rb, the registry's configuration, the database and its backups contain S3 keys, passwords and tokens."""
    secrets = [server.lab.secret(name) for name in ("s3_secret_key", "registry_password", "api_token")]
    patterns = "\n".join(secrets) + "\n"
    found = server.run("grep -rlF -f - /var/log /opt/gitlab /etc/gitlab /var/opt/gitlab /run; true", stdin=patterns)
    assert {re.sub(r"(?<=/backups)/.*", "", path) for path in found.split()} == {
        "/var/opt/gitlab/backups",
        "/etc/gitlab/gitlab.rb",
        "/var/opt/gitlab/registry/config.yml",
        "/var/opt/gitlab/standin/registry.yml",
        "/var/opt/gitlab/standin/db.json",
    }
    shown = server.run("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n'; true")
    assert not [secret for secret in secrets if secret in shown]


def test_removing_the_package_keeps_data_and_configuration(server):
    """Services end; /etc/gitlab and /var/opt/gitlab stay, the program does not."""
    server.run("DEBIAN_FRONTEND=noninteractive apt-get purge -qy gitlab-ce")
    assert server.rb.exists()
    assert (server.root / "var/opt/gitlab/registry/config.yml").exists()
    assert server.run("ls /opt/gitlab 2>/dev/null; systemctl list-units --no-legend 'gitlab-*'; true").strip() == ""
    with pytest.raises(LabError):
        server.run("command -v gitlab-ctl")

"""How the stand-in's registry chooses its metadata: lock files in its storage, a folder or S3.

Sources: GitLab's container registry, registry/handlers/app.go; GitLab's documentation, "Container registry metadata database".
"""

import json
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from provision_lab.standins.gitlab_ce.host import configs, lockfiles, metadata
from provision_lab.standins.gitlab_ce.host.lockfiles import DATABASE, FILESYSTEM, NotStarted, uses_database
from provision_lab.standins.gitlab_ce.host.settings import derive, metadata_warnings
from tests.support.buckets import ACCESS_KEY, SECRET_KEY, bucket, denying

OLD, TODAY = (18, 8, 0), (19, 3, 0)
LOCKS = "docker/registry/lockfiles"
LAYER = "docker/registry/v2/repositories/group/project/_layers/sha256/00/link"
URLS = {"external_url": "https://gitlab.example.com", "registry_external_url": "https://gitlab.example.com:5555"}


@dataclass
class Place:
    """A storage, and what there is in it."""

    storage: lockfiles.Storage
    names: object

    def put(self, *names):
        """Writes lock files."""
        for name in names:
            self.storage.write(f"{LOCKS}/{name}", b"{}")

    def locks(self):
        """The names of the lock files."""
        return sorted(name.removeprefix(f"{LOCKS}/") for name in self.names() if LOCKS in name)


def parameters(there, **changes):
    """Those of the driver."""
    table = {"bucket": "registry", "region": "us-east-1", "regionendpoint": there.url}
    return table | {"accesskey": ACCESS_KEY, "secretkey": SECRET_KEY} | changes


@pytest.fixture(scope="module")
def s3():
    """S3 for the tests of this module, each in a folder of its own."""
    with bucket() as there:
        yield there


@pytest.fixture(params=["folder", "s3"])
def place(request, s3, tmp_path):
    """An empty storage."""
    if request.param == "folder":
        files = lambda: [str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*") if one.is_file()]  # noqa: E731
        yield Place(lockfiles.storage_of({"filesystem": {"rootdirectory": str(tmp_path)}}), files)
    else:
        storage = lockfiles.storage_of({"s3": parameters(s3, rootdirectory=f"/{tmp_path.name}"), "cache": {}})
        start = f"{tmp_path.name}/"
        yield Place(storage, lambda: [one.removeprefix(start) for one in s3.objects() if one.startswith(start)])


CHOICES = [
    # enabled, lock files before, images of a registry without a database, uses the database, lock files afterwards
    ("prefer", [], False, True, [DATABASE]),
    ("prefer", [], True, True, [DATABASE]),
    ("prefer", [FILESYSTEM], True, False, [FILESYSTEM]),
    ("prefer", [DATABASE], False, True, [DATABASE]),
    ("prefer", [DATABASE, FILESYSTEM], True, "both lockfiles exist", None),
    ("true", [], False, True, [DATABASE]),
    ("true", [DATABASE], True, True, [DATABASE]),
    ("true", [FILESYSTEM], True, "registry filesystem metadata in use, please import data before", None),
    ("false", [], False, False, []),
    ("false", [], True, False, [FILESYSTEM]),
    ("false", [FILESYSTEM], True, False, [FILESYSTEM]),
    ("false", [DATABASE], False, "registry metadata database in use, please enable the database", None),
]


@pytest.mark.parametrize(("enabled", "before", "images", "outcome", "after"), CHOICES)
def test_lock_files_decide(place, capsys, enabled, before, images, outcome, after):
    """The four states of Prefer mode; what `true` and `false` refuse; which file the registry writes when it starts."""
    place.put(*before)
    if images:
        place.storage.write(LAYER, b"sha256:00")
    if isinstance(outcome, str):
        with pytest.raises(NotStarted, match=outcome):
            uses_database(enabled, place.storage, TODAY)
        assert place.locks() == sorted(before)
        return
    assert uses_database(enabled, place.storage, TODAY) is outcome
    assert place.locks() == after
    logged = capsys.readouterr().err
    assert ('level=info msg="using the metadata database"' in logged) is outcome
    assert ("falling back to legacy metadata" in logged) is (enabled == "prefer" and not outcome)


def test_before_18_9_there_are_no_lock_files(place):
    """They were not enforced."""
    place.put(DATABASE, FILESYSTEM)
    assert [uses_database(one, place.storage, OLD) for one in ("true", "prefer", "false")] == [True, True, False]


@pytest.mark.parametrize(
    ("changes", "rule", "message"),
    [
        ({"secretkey": "wrong"}, (), "StatusCode: 403, api error SignatureDoesNotMatch: The request signature"),
        ({"bucket": "nowhere"}, (), "StatusCode: 404, api error NoSuchBucket: "),
        ({"accesskey": None}, (), "get credentials: no EC2 IMDS role found"),
        ({}, ("ListObjects",), "operation error S3: ListObjectsV2, https response error StatusCode: 403"),
        ({}, ("PutObject",), "operation error S3: PutObject, https response error StatusCode: 403"),
    ],
)
@pytest.mark.parametrize("enabled", ["prefer", "false"])
def test_a_storage_that_cannot_be_used_stops_the_start(monkeypatch, capsys, changes, rule, message, enabled):
    """Its error is logged first: the lock files cannot be read, or not be written."""
    monkeypatch.setattr(lockfiles, "_METADATA_SERVICE", ("127.0.0.1", 9))
    with bucket(denying(*rule)) as there:
        storage = lockfiles.storage_of({"s3": parameters(there, **changes)})
        if enabled == "false" and rule == ("PutObject",):
            assert uses_database(enabled, storage, TODAY) is False  # without images it writes nothing
            return
        with pytest.raises(NotStarted) as refused:
            uses_database(enabled, storage, TODAY)
    assert message in str(refused.value)
    words = "failed to mark filesystem for database only usage" if rule == ("PutObject",) else "could not check if "
    logged = capsys.readouterr().err
    assert f'level=error msg="{words}' in logged
    assert json.dumps(str(refused.value)) in logged


@pytest.mark.parametrize(
    ("tables", "version", "metadata"),
    [
        ({}, TODAY, "prefer"),
        ({}, (19, 0, 0), "prefer"),
        ({}, (18, 11, 5), "false"),
        ({"registry": {"database": {"enabled": True}}}, (18, 0, 0), "true"),
        ({"registry": {"database": {"enabled": False}}}, TODAY, "false"),
        ({"registry": {"database": {"host": "db"}}}, TODAY, "prefer"),
        ({"postgresql": {"enable": False}}, TODAY, "false"),
        ({"postgresql": {"enable": False}, "registry": {"database": {"enabled": "true"}}}, TODAY, "true"),
    ],
)
def test_the_setting_s_default(tables, version, metadata):
    """ "prefer" from 19.0 on; not with another PostgreSQL: registry/attributes/default.rb, gitlab/libraries/registry.rb."""
    wanted = derive(URLS | tables, version)
    assert wanted.registry.metadata == metadata
    overridden = "postgresql" in tables and metadata == "false"
    assert bool(list(metadata_warnings(wanted))) is overridden
    page = configs.render_registry(wanted.registry, realm="", secret="", bundle="", issuer="")
    lines = [line.partition(": ")[2] for line in page.splitlines() if line.startswith("database: ")]
    if version >= (19, 0, 0):
        assert json.loads(lines[0]).items() >= {"enabled": wanted.registry.database["enabled"], "port": 5432}.items()


def test_offline_garbage_collection_is_refused_with_a_database(tmp_path):
    """The lock file says so: the registry's own error."""
    config = tmp_path / "registry.yml"
    config.write_text(f'storage: {{"filesystem":{{"rootdirectory":"{tmp_path}"}}}}\nhttp:\n  addr: 127.0.0.1:5000\n')
    assert lockfiles.read_config(config)[1] == "127.0.0.1:5000"
    assert lockfiles.collect_garbage(config, ["true"]) == ""
    uses_database("prefer", lockfiles.storage_of({"filesystem": {"rootdirectory": str(tmp_path)}}), TODAY)
    error = lockfiles.collect_garbage(config, ["true"])
    assert error.startswith(
        "this filesystem is managed by the metadata database, and offline garbage collection is no longer"
    )
    assert error.endswith("lock_path=/docker/registry/lockfiles/database-in-use")


def test_the_program(tmp_path):
    """It ends with the reason, and runs the registry itself where there is no database."""
    package = tmp_path / "gitlab_standin"
    package.symlink_to(Path(lockfiles.__file__).parent)
    config = tmp_path / "registry.yml"
    config.write_text(
        f'storage: {{"filesystem":{{"rootdirectory":"{tmp_path}/images"}}}}\nhttp:\n  addr: 127.0.0.1:5000\n'
    )
    root = 'import gitlab_standin.layout as l; from pathlib import Path; l.Paths.__init__.__defaults__ = (Path("{}"),)'
    manifest = tmp_path / "opt/gitlab/version-manifest.txt"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("gitlab-ce 19.3.0\n")
    program = f"{root.format(tmp_path)}; import sys, gitlab_standin.lockfiles as m; sys.exit(m.main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, str(config), str(tmp_path), "/bin/echo", "runs"]

    def run(enabled):
        done = subprocess.run(
            command, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path), "STANDIN_DATABASE": enabled}
        )
        return done.returncode, done.stdout, done.stderr

    code, out, err = run("false")
    assert (code, out) == (0, "runs\n"), err
    (tmp_path / "images" / LOCKS).mkdir(parents=True)
    (tmp_path / "images" / LOCKS / DATABASE).write_text("{}")
    code, out, err = run("false")
    assert (code, out) == (1, "")
    assert "creating new registry instance: configuring application: registry metadata database in use" in err


def test_a_registry_behind_that_ends(tmp_path):
    """Nothing listens then: the reconfigure must see that it does not start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:  # a server that tried to listen here would fail
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert metadata.run(address, tmp_path, ["sh", "-c", "exit 3"]) == 3

"""A registry's images when its storage changes: pushed and pulled with nginx, registry and S3; never left unreachable silently."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from provision.inventory.tree import merge
from provision_lab import LabHost
from provision_lab.harness import Harness, inventory_of
from tests.support.runs import applied, provision, reconfigures, refused, unchanged, untouched, without_s3
from tests.support.waiting import wait_for

Tables = Mapping[str, Any]
IMAGE = "gitlab.lab.test:5555/root/hello_hapi"
PUSH = f"""
docker login -u root --password-stdin gitlab.lab.test:5555 2>/dev/null &&
tar -C / -c bin/busybox | docker import - {IMAGE}:$1 && docker push -q {IMAGE}:$1 && docker image rm -f {IMAGE}:$1
"""
PULL = f"docker pull -q {IMAGE}:$1 && docker run --rm {IMAGE}:$1 /bin/busybox echo pulled; docker image rm -f {IMAGE}:$1 >&2"
LOCKS = "docker/registry/lockfiles"
ACKNOWLEDGED = ("--set", "registry.migrate=acknowledged")


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """GitLab with images on its disk, one of them pushed, and a host with Docker."""
    harness = without_s3(harness_factory(LabHost("gitlab", prepared="server"), LabHost("runner", prepared="runner")))
    docker(harness, PUSH, "disk")
    return harness


def docker(harness: Harness, script: str, tag: str) -> str:
    """Pushes or pulls on the host with Docker."""
    return harness.lab.inside("runner", f"set -- {tag}\n{script}", stdin=harness.lab.secret("registry_password"))


def copy_to_bucket(harness: Harness) -> None:
    """Copies all objects below docker/ from the host's disk, as the advice says."""
    images = harness.lab.machine("gitlab").root / "var/opt/gitlab/gitlab-rails/shared/registry"
    for path in filter(Path.is_file, (images / "docker").rglob("*")):
        client(harness).upload_file(str(path), "registry", str(path.relative_to(images)))


def s3(harness: Harness, **changes: str) -> Tables:
    """The inventory with the lab's S3."""
    return {"registry": {"s3": {**inventory_of(harness.lab)["registry"]["s3"], **changes}}}


def client(harness: Harness) -> Any:
    """A client of the lab's S3."""
    from importlib import import_module  # it has no types

    keys = {
        "aws_access_key_id": harness.lab.secret("s3_access_key"),
        "aws_secret_access_key": harness.lab.secret("s3_secret_key"),
    }
    return import_module("boto3").client("s3", endpoint_url=harness.lab.s3_url, region_name="us-east-1", **keys)


def bucket(harness: Harness) -> list[str]:
    """The names of all objects."""
    return [one["Key"] for one in client(harness).list_objects_v2(Bucket="registry").get("Contents", [])]


def test_images_on_disk_are_not_left_behind(harness: Harness) -> None:
    """A switch to S3 is refused while there are images: which, and how to copy them; nothing changes."""
    before = reconfigures(harness)
    with untouched(harness, "gitlab", "/etc/gitlab", "/var/lib/provision"):
        outcome = refused(harness, "server", changes=s3(harness))
    (error,) = outcome.of("error")
    assert (error["error"], error["resource"]) == ("Refused", "RegistryStorage")
    assert "(root/hello_hapi is one)" in error["text"]
    assert "docker/" in error["hint"]
    assert "--set registry.migrate=acknowledged" in error["hint"]
    assert (reconfigures(harness), "pulled" in docker(harness, PULL, "disk")) == (before, True)


def test_acknowledged_it_switches(harness: Harness) -> None:
    """Acknowledged, it switches and names what is left behind; one reconfigure, then nothing to do."""
    before = reconfigures(harness)
    outcome = applied(harness, "server", *ACKNOWLEDGED, changes=s3(harness))
    assert "the registry's storage changes, as acknowledged: images on the host's disk" in outcome.messages()
    assert reconfigures(harness) == before + 1
    unchanged(harness, "server", changes=s3(harness))
    unchanged(harness, "server", *ACKNOWLEDGED, changes=s3(harness))
    assert [one for one in bucket(harness) if "provision" in one] == []


def test_what_was_not_copied_is_found(harness: Harness) -> None:
    """The registry's database still lists the image: `verify` names it, until its data is in the new place."""
    outcome = refused(harness, "verify", changes=s3(harness))
    (error,) = outcome.of("error")
    assert "root/hello_hapi:disk is listed, and sha256:" in error["text"]
    assert "copy all objects below docker/" in error["text"]
    copy_to_bucket(harness)
    applied(harness, "verify", changes=s3(harness))
    assert "pulled" in docker(harness, PULL, "disk")


def test_pushed_and_pulled_through_s3(harness: Harness) -> None:
    """An image is stored in the bucket and pulled again; `verify` succeeds and leaves no tag."""
    before = len(bucket(harness))
    docker(harness, PUSH, "s3")
    assert len(bucket(harness)) > before
    assert "pulled" in docker(harness, PULL, "s3")
    outcome = applied(harness, "verify", changes=s3(harness))
    assert "verify push and pull" in outcome.messages()
    assert outcome.changes() == []
    assert "pulled" in docker(harness, PULL, "s3")


@pytest.mark.parametrize(
    ("place", "besides"),
    [({"bucket": "other"}, {"S3Bucket other": "there is no bucket other"}), ({"rootdirectory": "/deeper"}, {})],
    ids=["bucket", "folder"],
)
def test_another_place_in_s3(harness: Harness, place: Mapping[str, str], besides: Mapping[str, str]) -> None:
    """Another bucket or folder is refused too, with the images; acknowledged, it is planned."""
    outcome = provision(harness, "registry", "--check", changes=s3(harness, **place))
    errors = {one["resource"]: one["text"] for one in outcome.of("error")}
    assert (outcome.code, len(outcome.of("error"))) == (1, 1 + len(besides))
    assert "images in bucket registry would no longer be found" in errors.pop("RegistryStorage")
    assert errors.keys() == besides.keys()
    assert [one for one, words in besides.items() if words not in errors[one]] == [], errors
    if "rootdirectory" in place:
        outcome = applied(harness, "registry", "--check", *ACKNOWLEDGED, changes=s3(harness, **place))
        assert "the registry's storage changes, as acknowledged: images in bucket registry" in outcome.messages()
        assert outcome.changes() == ["set registry['storage']['s3'] in /etc/gitlab/gitlab.rb", "reconfigure GitLab"]


def test_other_settings_of_the_same_place(harness: Harness) -> None:
    """Another chunk size moves no image: not refused."""
    outcome = applied(
        harness,
        "registry",
        "--check",
        changes={"registry": {"s3": {**s3(harness)["registry"]["s3"], "chunksize": 6000000}}},
    )
    assert outcome.changes() == ["set registry['storage']['s3'] in /etc/gitlab/gitlab.rb", "reconfigure GitLab"]


def test_with_a_metadata_database(harness: Harness) -> None:
    """Images are listed after a change of the folder in the bucket: refused with the advice; `verify` finds them missing."""
    here, there = (s3(harness, **place) for place in ({}, {"rootdirectory": "/deeper"}))
    assert f"{LOCKS}/database-in-use" in bucket(harness)
    outcome = refused(harness, "server", changes=there)
    (error,) = outcome.of("error")
    assert (error["error"], error["resource"]) == ("Refused", "RegistryStorage")
    assert "(root/hello_hapi is one)" in error["text"]
    assert "copy them in any case" in error["hint"]
    applied(harness, "server", *ACKNOWLEDGED, changes=there)
    outcome = refused(harness, "verify", changes=there)
    (error,) = outcome.of("error")
    assert "is listed, and sha256:" in error["text"]
    applied(harness, "server", *ACKNOWLEDGED, changes=here)
    applied(harness, "verify", changes=here)
    assert "pulled" in docker(harness, PULL, "s3")


def test_images_from_before_the_database(harness: Harness) -> None:
    """A registry that was used without a database goes on without it, as after an upgrade to GitLab 19: nothing is lost."""
    there = s3(harness, rootdirectory="/before")
    without = merge(there, {"gitlab": {"settings": {"registry": {"database": {"enabled": False}}}}})
    applied(harness, "server", *ACKNOWLEDGED, changes=without)
    docker(harness, PUSH, "before")
    harness.lab.inside("gitlab", "gitlab-ctl restart registry")
    wait_for(lambda: f"before/{LOCKS}/filesystem-in-use" in bucket(harness), "the registry has marked its storage", 30)
    applied(harness, "server", changes=there)
    assert "falling back to legacy metadata" in harness.lab.inside("gitlab", "cat /var/log/gitlab/registry/current")
    applied(harness, "verify", changes=there)
    assert "pulled" in docker(harness, PULL, "before")
    outcome = refused(harness, "server", changes=s3(harness))
    assert "(root/hello_hapi is one)" in outcome.of("error")[0]["text"]

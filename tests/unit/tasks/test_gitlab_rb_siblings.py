"""What stands beside our settings in gitlab.rb stays. Ruby reads the file before and after, and decides what changed."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from provision.resources import RubySettings
from provision.resources.base import Change
from provision.shell import Command
from provision.testing import observe, packages_are, planned
from tests.support.omnibus_ruby import RUBY, Omnibus

pytestmark = pytest.mark.skipif(RUBY is None, reason="needs ruby to read the results: apt-get install ruby")

STORAGE = b"""\
registry_external_url 'http://r.example.com:5000'
registry['storage'] = {
  's3' => {
    'accesskey' => 'AK', 'secretkey' => 'SK', 'bucket' => 'b', 'region' => 'eu'
  },
  'maintenance' => { 'readonly' => { 'enabled' => true } }, # until the copy is done
  'cache' => { 'blobdescriptor' => 'inmemory' }
}
"""
REGISTRY = """
[registry]
external_url = "http://r.example.com:5000"
[registry.s3]
bucket = "b"
region = "REGION"
accesskey = "AK"
secretkey = "SK"
"""
OBJECT_STORE = b"""\
external_url 'https://g.example.com'
gitlab_rails['object_store']['enabled'] = true
gitlab_rails['object_store']['connection'] = {
  'provider' => 'AWS', 'region' => 'eu-central-1'
}
gitlab_rails['object_store']['storage_options'] = {
  'server_side_encryption' => 'AES256', # or aws:kms
}
gitlab_rails['object_store']['objects']['artifacts']['bucket'] = 'art'
"""
CONNECTION = """
[gitlab.settings.gitlab_rails.object_store.connection]
provider = "AWS"
region = "eu-west-1"
"""
Wants = Callable[..., Any]


@pytest.fixture(scope="module")
def ruby() -> Iterator[Omnibus]:
    """Reads gitlab.rb as omnibus does."""
    reader = Omnibus()
    yield reader
    reader.close()


def changes(wants: Wants, task: str, inventory: str, file: bytes, record: Any = None) -> list[Change]:
    """What the task plans in gitlab.rb."""
    base = '[hosts.g]\ngroups = ["gitlab"]\n[gitlab]\nexternal_url = "https://g.example.com"\n'
    (resource,) = [one for one in wants(task, inventory, base=base) if isinstance(one, RubySettings)]
    answers = {"file": gzip.compress(file), "packages": packages_are({"gitlab-ce": "19.3.0-ce.0"})}
    return planned(resource, observe(resource, answers, record=record))


def written(change: Change) -> bytes:
    """The file that a change writes."""
    assert isinstance(change.run, Command)
    return change.run.stdin


@pytest.mark.parametrize("record", [None, [["registry", "storage"], ["registry_external_url"]]])
def test_only_the_driver_of_the_storage_is_ours(wants: Wants, ruby: Omnibus, record: Any) -> None:
    """Read-only mode and the cache stay, also where version 0.1.0 recorded the whole storage as ours."""
    (change, *_) = changes(wants, "registry", REGISTRY.replace("REGION", "us"), STORAGE, record)
    expected = ruby.evaluate(STORAGE)
    expected["registry"]["storage"]["s3"]["region"] = "us"
    assert ruby.evaluate(written(change)) == expected
    assert b"# until the copy is done" in written(change)
    assert ["registry", "storage", "s3"] in change.record


def test_a_record_of_the_whole_storage_becomes_one_of_the_driver(wants: Wants) -> None:
    """Nothing is edited where the storage is as wanted."""
    record = [["registry", "storage"], ["registry_external_url"]]
    (change,) = changes(wants, "registry", REGISTRY.replace("REGION", "eu"), STORAGE, record)
    assert change.verification
    assert change.record == [["registry", "storage", "s3"], ["registry_external_url"]]


@pytest.mark.parametrize(
    "other",
    [
        b"registry['storage'] = { 'filesystem' => { 'rootdirectory' => '/x' }, 'delete' => { 'enabled' => true } }\n",
        b"registry['storage']['s3_v2'] = { 'bucket' => 'b' }\nregistry['storage']['delete']['enabled'] = true\n",
    ],
)
def test_another_driver_is_removed(wants: Wants, ruby: Omnibus, other: bytes) -> None:
    """The registry does not start with two."""
    (change, *_) = changes(wants, "registry", REGISTRY.replace("REGION", "eu"), other)
    storage = ruby.evaluate(written(change))["registry"]["storage"]
    assert storage.keys() == {"s3", "delete"}
    assert storage["delete"] == {"enabled": True}


def test_only_the_mentioned_part_of_a_hash_changes(wants: Wants, ruby: Omnibus) -> None:
    """Buckets and options of the object storage stay."""
    (change,) = changes(wants, "gitlab", CONNECTION, OBJECT_STORE)
    expected = ruby.evaluate(OBJECT_STORE)
    expected["gitlab_rails"]["object_store"]["connection"]["region"] = "eu-west-1"
    assert ruby.evaluate(written(change)) == expected
    assert changes(wants, "gitlab", CONNECTION, written(change), change.record) == []


def test_parts_of_a_hash_are_set_where_there_is_none(wants: Wants, ruby: Omnibus) -> None:
    """Values and further tables, in a file without any of it; dropped parts are removed again."""
    more = "\n[gitlab.settings.gitlab_rails.object_store]\nenabled = true\n" + CONNECTION
    (change,) = changes(wants, "gitlab", more, b"external_url 'https://g.example.com'\n")
    store = ruby.evaluate(written(change))["gitlab_rails"]["object_store"]
    assert store == {"enabled": True, "connection": {"provider": "AWS", "region": "eu-west-1"}}
    (without,) = changes(wants, "gitlab", CONNECTION, written(change), change.record)
    assert "enabled" not in ruby.evaluate(written(without))["gitlab_rails"]["object_store"]

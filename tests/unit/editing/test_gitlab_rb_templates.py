"""The templates of GitLab's packages are edited; unsafe edits are refused."""

from __future__ import annotations

from typing import Any

import pytest

from provision.editing.ruby.edit import edit
from provision.editing.ruby.values import nginx_path
from provision.errors import Refused
from tests.support.data import DATA
from tests.support.omnibus_ruby import RUBY, check_edit

URL = {("external_url",): "https://new.example.com"}
ZONE = {("gitlab_rails", "time_zone"): "UTC"}
BUCKET = {("registry", "storage", "s3", "bucket"): "new"}
STORAGE = {("registry", "storage"): {"s3": {"bucket": "new", "region": "nyc3"}}}


TEMPLATES = ("12.10.0", "18.0.0", "19.3.0")


@pytest.mark.skipif(RUBY is None, reason="needs ruby to read the results: apt-get install ruby")
@pytest.mark.parametrize("version", TEMPLATES)
def test_template(version: str, omnibus: Any) -> None:
    """A registry is set in the package's template; every other line stays, and removing it restores the file."""
    file = DATA / f"gitlab.rb.template.{version}+ce.0"
    before, nginx = file.read_bytes(), nginx_path(version)
    wanted: dict[tuple[str, ...], Any] = {
        ("external_url",): "https://gitlab.example.com",
        ("registry_external_url",): "https://gitlab.example.com:5555",
        (*nginx, "ssl_certificate"): "/etc/gitlab/ssl/r.crt",
        (*nginx, "ssl_certificate_key"): "/etc/gitlab/ssl/r.key",
        ("registry", "storage"): {"s3": {"bucket": "b", "region": "nyc3"}, "redirect": {"disable": True}},
        ("letsencrypt", "enable"): False,
        ("gitlab_rails", "time_zone"): "UTC",
    }
    done = edit(before, wanted)
    check_edit(omnibus, before, done.content, wanted)
    lines = done.content.split(b"\n")
    at = {
        text: lines.index(text)
        for text in (b"registry_external_url 'https://gitlab.example.com:5555'", b"letsencrypt['enable'] = false")
    }
    assert [lines[number - 1] for number in at.values()] == [
        b"# registry_external_url 'https://registry.example.com'",
        b"# letsencrypt['enable'] = nil",
    ]
    assert lines[lines.index(b"registry['storage'] = {") - 1] == b"# }"
    section = done.content[done.content.index(b"\n## Registry NGINX\n") : done.content.index(b"\n## Prometheus\n")]
    assert section.count(b"['ssl_certificate") == 2
    ours = [path for path in wanted if path != ("external_url",)]
    assert edit(done.content, {("external_url",): "GENERATED_EXTERNAL_URL"}, ours).content == before


REFUSED = {
    "inside if": ("x = 1\nif x\n  gitlab_rails['time_zone'] = 'CET'\nend\n", ZONE, "line 3", "`if`"),
    "modifier if": ("gitlab_rails['time_zone'] = 'CET' if true\n", ZONE, "line 1", "`if`"),
    "modifier unless": ("external_url 'http://old' unless ENV['X']\n", URL, "line 1", "`unless`"),
    "begin": ("begin\n  external_url 'http://old'\nrescue\nend\n", URL, "line 2", "`begin`"),
    "after ours": (
        "gitlab_rails['time_zone'] = 'UTC'\ngitlab_rails['time_zone'] = 'CET' if true\n",
        ZONE,
        "line 2",
        "`if`",
    ),
    "part in a condition": ("registry['storage']['s3']['bucket'] = 'old' if true\n", STORAGE, "line 1", "`if`"),
    "whole in a condition": ("registry['storage'] = {} unless false\n", BUCKET, "line 1", "`unless`"),
    "in a block": ("[1].each { gitlab_rails['time_zone'] = 'CET' }\n", ZONE, "line 1", "a block"),
    "changed in place": ("roles ['a']\nroles << 'b'\n", {("roles",): ["c"]}, "line 2", "in place"),
    "deleted": ("gitlab_rails['time_zone'] = 'UTC'\ngitlab_rails.delete('time_zone')\n", ZONE, "line 2", "in place"),
    "no hash": ("registry['storage'] = nil\n", BUCKET, "line 1", "no hash"),
    "holder by or-equals": ("registry['storage'] ||= {}\n", BUCKET, "line 1", "on its earlier value"),
    "shadowed": ("gitlab_rails = {}\n", ZONE, "line 1", "local variable"),
    "unfinished": ("nginx['x'] = 1\nregistry['storage'] = {\n", URL, "line 2", "ruby -c"),
    "unfinished heredoc": ("nginx['x'] = <<EOS\nfoo\n", URL, "line 1", "ruby -c"),
    "no Ruby": ("external_url 'https://x\n", URL, "line 1", "ruby -c"),
    "overlapping": ("", {**STORAGE, **BUCKET}, "registry['storage']", "both wanted"),
    "is not the name": ("", {("Foo",): 1}, "Foo", "is not the name"),
    "infinite": ("", {("nginx", "x"): float("inf")}, "nginx['x']", "float"),
    "half a pair": ("", {("nginx", "x"): "\ud800"}, "nginx['x']", "UTF-16"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    """An unsafe edit is refused: the message names the line and what to do, and no secret."""
    before, wanted, place, reason = REFUSED[case]
    with pytest.raises(Refused) as caught:
        edit(before.encode(), wanted)
    assert place in caught.value.text
    assert reason in str(caught.value)
    assert caught.value.hint

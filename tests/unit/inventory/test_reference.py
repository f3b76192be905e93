"""Image references: what the grammar accepts, and the messages for the rest."""

from __future__ import annotations

import pytest

from provision.image_name import Reference, check_hub_push, parse, parse_name

SHA = "sha256:" + "0a" * 32

GOOD = [
    ("hello", "", "hello", "", ""),
    ("sammy/hello", "", "sammy/hello", "", ""),
    ("sammy/hello:1.0", "", "sammy/hello", "1.0", ""),
    ("a/b/c/d:latest", "", "a/b/c/d", "latest", ""),
    ("gitlab.example.com:5555/sammy/hello:1.0", "gitlab.example.com:5555", "sammy/hello", "1.0", ""),
    ("gitlab.example.com/hello", "gitlab.example.com", "hello", "", ""),
    ("localhost/hello", "localhost", "hello", "", ""),
    ("registry:5000/hello", "registry:5000", "hello", "", ""),
    ("[2001:db8::1]:5000/hello", "[2001:db8::1]:5000", "hello", "", ""),
    ("docker.io/user/app:1", "docker.io", "user/app", "1", ""),
    (f"sammy/hello@{SHA}", "", "sammy/hello", "", SHA),
    (f"sammy/hello:1@{SHA}", "", "sammy/hello", "1", SHA),
    ("a-b__c_d_e---f/x0.1", "", "a-b__c_d_e---f/x0.1", "", ""),
    ("localhost:5000", "", "localhost", "5000", ""),
    ("x:" + "t" * 128, "", "x", "t" * 128, ""),
    ("x:_A.b-C", "", "x", "_A.b-C", ""),
    ("a" * 255, "", "a" * 255, "", ""),
]


@pytest.mark.parametrize(("text", "domain", "path", "tag", "digest"), GOOD)
def test_good(text: str, domain: str, path: str, tag: str, digest: str) -> None:
    """Parsing and formatting give the same text."""
    assert parse(text) == Reference(domain, path, tag, digest)
    assert str(parse(text)) == text


BAD = [
    ("", "expected an image such as"),
    ("sammy /hello", "without spaces"),
    ("https://gitlab.example.com/sammy/hello", "write 'gitlab.example.com/sammy/hello'"),
    ("sammy/Hello", "images are named in lower case: expected 'hello', got 'Hello'"),
    ("Sammy/hello", "expected 'sammy', got 'Sammy'"),
    ("sammy//hello", "single slashes"),
    ("/hello", "single slashes"),
    ("sammy/", "single slashes"),
    ("sammy/-hello", "lower-case letters and digits, joined by"),
    ("sammy/hello-", "joined by"),
    ("sammy/he..llo", "joined by"),
    ("sammy/he___llo", "joined by"),
    ("sammy/hé", "joined by"),
    ("hello:", "expected a tag"),
    ("hello:-1", "expected a tag"),
    ("hello:.1", "expected a tag"),
    ("hello:1+2", "expected a tag of letters, digits"),
    ("hello:" + "t" * 129, "at most 128"),
    ("a" * 256, "at most 255 characters, this one has 256"),
    ("gitlab.example.com:5555/" + "a" * 240, "at most 255 characters, this one has 264"),
    ("gitlab.example.com:99999/hello", "expected a registry"),
    ("[::ffff:192.0.2.1]:5000/hello", "expected a registry"),
    ("git_lab.example.com/hello", "expected a registry"),
    ("-x.example.com/hello", "expected a registry"),
    ("hello@sha256:12", "64 hexadecimal digits"),
    ("hello@", "expected a digest"),
    ("0a" * 32, "are an image's id"),
]


@pytest.mark.parametrize(("text", "why"), BAD)
def test_bad(text: str, why: str) -> None:
    """Each is refused with what is expected."""
    with pytest.raises(ValueError, match=r"expected|images are|at most|are an image") as refusal:
        parse(text)
    assert why in str(refusal.value)


@pytest.mark.parametrize(("text", "why"), [("a/b:1", 'write tags = ["1"]'), (f"a/b@{SHA}", "without a digest")])
def test_a_name_has_neither_tag_nor_digest(text: str, why: str) -> None:
    """A name with a tag is refused: tags have their own key."""
    with pytest.raises(ValueError, match="expected") as refusal:
        parse_name(text)
    assert why in str(refusal.value)


HUB = [
    ("docker.io/user/app", ""),
    ("gitlab.example.com/a/b/c.d", ""),
    ("docker.io/app", "USER/NAME"),
    ("docker.io/user/group/app", "USER/NAME"),
    ("docker.io/user/a", "2 to 255"),
    ("docker.io/user/a.b", "2 to 255"),
    ("docker.io/u/app", "2 to 30"),
    ("docker.io/" + "u" * 31 + "/app", "2 to 30"),
]


@pytest.mark.parametrize(("text", "why"), HUB)
def test_docker_hubs_rules_for_pushing(text: str, why: str) -> None:
    """Docker Hub has additional rules; other registries do not."""
    if not why:
        check_hub_push(parse(text))
        return
    with pytest.raises(ValueError, match=why):
        check_hub_push(parse(text))


PLACES = [
    ("sammy/hello:1", "gitlab.example.com:5555/sammy/hello:1"),
    ("docker.io/python:3", "docker.io/library/python:3"),
    ("docker.io/user/app", "docker.io/user/app"),
    ("other.example.com/x", "other.example.com/x"),
]


@pytest.mark.parametrize(("text", "full"), PLACES)
def test_the_own_registry_is_where_no_other_is_named(text: str, full: str) -> None:
    """Docker Hub's official images get `library/`."""
    assert str(parse(text).at("gitlab.example.com:5555")) == full

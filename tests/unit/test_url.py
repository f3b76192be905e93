"""`Url`: parsed once, and written as each program wants it."""

from __future__ import annotations

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from provision.url import Url, UrlField, bracketed, is_ip

# text: host, port, authority, netloc, str()
PARSED = [
    ("https://g.example.com:5555", "g.example.com", 5555, "g.example.com:5555", "g.example.com:5555"),
    ("https://g.example.com", "g.example.com", 443, "g.example.com", "g.example.com:443"),
    ("https://g.example.com:443/", "g.example.com", 443, "g.example.com", "g.example.com:443"),
    ("http://g.example.com", "g.example.com", 80, "g.example.com", "g.example.com:80"),
    ("http://g.example.com:443", "g.example.com", 443, "g.example.com:443", "g.example.com:443"),
    ("https://[2001:db8::1]:5555", "2001:db8::1", 5555, "[2001:db8::1]:5555", "[2001:db8::1]:5555"),
    ("https://[2001:db8::1]", "2001:db8::1", 443, "[2001:db8::1]", "[2001:db8::1]:443"),
    ("https://203.0.113.7:5000/", "203.0.113.7", 5000, "203.0.113.7:5000", "203.0.113.7:5000"),
    ("HTTPS://G.Example.com", "g.example.com", 443, "g.example.com", "g.example.com:443"),
]


@pytest.mark.parametrize(("text", "host", "port", "authority", "netloc"), PARSED)
def test_parts(text: str, host: str, port: int, authority: str, netloc: str) -> None:
    """An IPv6 address has brackets wherever a port may follow, and nowhere else."""
    url = Url.parse(text)
    assert (url.host, url.port, url.authority, url.netloc) == (host, port, authority, netloc)
    assert url.origin == f"{url.scheme}://{authority}"
    assert str(url) == text.rstrip("/")


def test_paths() -> None:
    """No slash at the end; what is below is put behind one slash."""
    url = Url.parse("https://example.com/gitlab//")
    assert (url.path, str(url), url.origin) == ("/gitlab", "https://example.com/gitlab", "https://example.com")
    assert str(url / "api/v4") == "https://example.com/gitlab/api/v4"
    assert (url / "/v2/").text == "https://example.com/gitlab/v2/"
    assert url == Url.parse("https://example.com:443/gitlab")


def test_a_url_that_was_put_together() -> None:
    """Without a text of its own it is written from its parts."""
    assert str(Url("https", "2001:db8::1", 5555, "/v2")) == "https://[2001:db8::1]:5555/v2"
    assert repr(Url.parse("https://g/")) == "Url('https://g')"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "g.example.com",
            "//g",
            "ftp://g",
            "https://",
            "https://g:0",
            "https://g:99999",
            "https://g:x",
            "https://a b",
        ),
        *("https://user@g", "https://g?x=1", "https://g#x", "https://[2001:db8::1", "https://[fe80::1%eth0]"),
        *("https://2001:db8::1:5555", "https://[g]:5555"),
    ],
)
def test_what_is_no_url(text: str) -> None:
    """Refused with an example of one."""
    with pytest.raises(
        ValueError, match=r'expected a URL with its scheme, such as "https://gitlab\.example\.com", got '
    ):
        Url.parse(text)


def test_a_request_may_have_a_query_and_a_user() -> None:
    """Kept as it was written."""
    url = Url.parse("http://me:pw@localhost:5001/health/?x=1", request=True)
    assert (url.host, url.port, url.path, url.query) == ("localhost", 5001, "/health", "x=1")
    assert url.text == "http://me:pw@localhost:5001/health/?x=1"


class Model(BaseModel):
    """A table with URLs."""

    plain: Url | None = None
    registry: Annotated[Url, UrlField("https://r.example.com:5555", path=False)] | None = None


def test_as_a_field() -> None:
    """A string is parsed; the message about an invalid one has the field's example."""
    assert Model.model_validate({"plain": "https://g/x"}).plain == Url.parse("https://g/x")
    assert Model.model_validate({"registry": Url.parse("https://g")}).registry == Url.parse("https://g")
    for value, text in [
        ("g", 'expected a URL with its scheme, such as "https://r.example.com:5555"'),
        ("https://g/x", "expected a URL without a path"),
        (5, "expected a URL as a string"),
    ]:
        with pytest.raises(ValidationError, match=text):
            Model.model_validate({"registry": value})
    properties = Model.model_json_schema()["properties"]
    assert properties["registry"]["anyOf"][0] == properties["plain"]["anyOf"][0] == {"type": "string"}


@given(st.ip_addresses(), st.integers(1, 65535), st.sampled_from(["http", "https"]))
def test_any_address_comes_back(address: object, port: int, scheme: str) -> None:
    """host, port and scheme are what was put in, and the authority parses to the same place."""
    url = Url.parse(f"{scheme}://{bracketed(str(address))}:{port}")
    assert (url.host, url.port, url.scheme) == (str(address), port, scheme)
    assert is_ip(url.host)
    assert Url.parse(url.origin) == url


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """With ValueError, and nothing else."""
    for candidate in (text, f"https://{text}"):
        try:
            url = Url.parse(candidate)
        except ValueError:
            continue
        assert Url.parse(str(url)) == url


@pytest.mark.parametrize(
    ("text", "ipv6", "loopback"),
    [
        ("https://[2001:db8::1]:5555", True, "[::1]"),
        ("https://192.0.2.1", False, "127.0.0.1"),
        ("https://gitlab.example.com", False, "127.0.0.1"),
    ],
)
def test_where_its_own_host_is_asked(text: str, ipv6: bool, loopback: str) -> None:
    """An IPv6 address by IPv6."""
    url = Url.parse(text)
    assert (url.is_ipv6, url.loopback) == (ipv6, loopback)


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("gitlab.acme-corp.dev", True),
        ("registry.example.dev", True),
        ("local.dev", True),
        ("gitlab.company.io.", True),
        ("gitlab.corp.io", True),
        ("gitlab", False),
        ("203.0.113.7", False),
        ("[2001:db8::1]", False),
        ("localhost", False),
        *(
            (f"gitlab.{ending}", False)
            for ending in (
                *("local", "internal", "lan", "test", "invalid", "localhost", "example", "example.com", "example.org"),
                *(
                    "home.arpa",
                    "onion",
                    "alt",
                    "localdomain",
                    "intranet",
                    "corp",
                    "home",
                    "private",
                    "corp.local",
                    "LAN",
                ),
            )
        ),
    ],
)
def test_names_that_a_public_authority_may_certify(host: str, public: bool) -> None:
    """No address, no single label, and none of the endings that are reserved for private use."""
    assert Url.parse(f"https://{host}:5555").is_public is public

"""config.toml by examples: the file, what is wanted, the result."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from typing import Any

import pytest

from provision.editing.toml.edit import entries, reconcile
from provision.editing.toml.model import RunnerId, WantedRunner, dotted_keys, fingerprint
from provision.errors import Refused
from provision.secret import Secret
from tests.support.data import DATA

URL = "https://gitlab.example.com"
TOKEN = "glrt-xxxxxxxxxxxxxxxxxxxx"


def wanted(token: str | None = TOKEN, name: str = "docker-runner-1", **settings: Any) -> WantedRunner:
    """A runner on the usual server."""
    return WantedRunner(name, URL, token, settings)


def sample(name: str) -> str:
    """A file as gitlab-runner 19.3.0 writes it."""
    return (DATA / name).read_text()


def test_fresh_file_looks_like_gitlab_runners_own() -> None:
    """No file: top keys, then the entry, indented as gitlab-runner does."""
    done = reconcile(
        "",
        top={"concurrent": 4, "check_interval": 0, "session_server": {"session_timeout": 1800}},
        runners=[
            wanted(
                executor="docker",
                environment=["A=b"],
                docker={"image": "docker:28", "privileged": True, "services": [{"name": "docker:dind"}]},
                feature_flags={"FF_NETWORK_PER_BUILD": True},
            )
        ],
    )
    assert done.text == (
        """\
concurrent = 4
check_interval = 0

[session_server]
  session_timeout = 1800

[[runners]]
  name = "docker-runner-1"
  url = "https://gitlab.example.com"
  token = "glrt-xxxxxxxxxxxxxxxxxxxx"
  executor = "docker"
  environment = ["A=b"]
  [runners.docker]
    image = "docker:28"
    privileged = true

    [[runners.docker.services]]
      name = "docker:dind"
  [runners.feature_flags]
    FF_NETWORK_PER_BUILD = true
"""
    )
    assert [action.kind for action in done.actions] == ["update", "create"]
    assert TOKEN not in repr(done)


def test_fresh_file_with_a_runner_only() -> None:
    """No top-level keys: the file begins with the entry."""
    assert reconcile("", top={}, runners=[wanted()]).text.startswith("[[runners]]\n")


def test_nothing_wanted() -> None:
    """No runner and no key for an empty file: no change."""
    assert reconcile("", top={}, runners=[]) == reconcile("", top={}, runners=[])
    assert not reconcile("", top={}, runners=[]).changed


@pytest.mark.parametrize("name", ["config.toml.register-19.3.0-docker.sample", "config.toml.19.3.0-fuller.sample"])
def test_real_file_converged(name: str) -> None:
    """Part of what the runner wrote is wanted: no change, and the same text object."""
    text = sample(name)
    done = reconcile(
        text,
        top={"concurrent": 1},
        runners=[wanted(docker={"privileged": True, "volumes": ["/certs/client", "/cache"]})],
    )
    assert not done.changed
    assert done.text is text


def test_real_file_one_key() -> None:
    """One key differs: one line differs."""
    text = sample("config.toml.19.3.0-fuller.sample")
    done = reconcile(text, top={}, runners=[wanted(docker={"image": "docker:30"})])
    assert done.text == text.replace('"docker:29.7.2-cli"', '"docker:30"')
    assert [action.summary for action in done.actions] == ["docker-runner-1: set docker.image"]


def test_real_file_services_replaced_in_place() -> None:
    """An array of tables is one value: written anew where it stood."""
    text = sample("config.toml.19.3.0-fuller.sample")
    done = reconcile(text, top={}, runners=[wanted(docker={"services": [{"name": "db"}, {"name": "dind"}]})])
    assert tomllib.loads(done.text)["runners"][0]["docker"]["services"] == [{"name": "db"}, {"name": "dind"}]
    assert done.text.startswith(text[: text.index("    [[runners.docker.services]]")])


def test_real_file_emptied_cache_table() -> None:
    """New keys of an empty table are written into it."""
    text = sample("config.toml.register-19.3.0-docker.sample")
    done = reconcile(text, top={}, runners=[wanted(cache={"Type": "s3", "s3": {"BucketName": "b"}})])
    assert done.text == text.replace(
        "    MaxUploadedArchiveSize = 0\n", '    MaxUploadedArchiveSize = 0\n    Type = "s3"\n'
    ).replace("      AssumeRoleMaxConcurrency = 0\n", '      AssumeRoleMaxConcurrency = 0\n      BucketName = "b"\n')


OLD_STYLE = f"""\
concurrent = 1
check_interval = 0
shutdown_timeout = 0

[session_server]
  session_timeout = 1800

[[runners]]
  name = "docker-runner-1"
  url = "{URL}"
  id = 1
  token = "{TOKEN}"
  token_obtained_at = 2024-05-01T10:00:00Z
  token_expires_at = 0001-01-01T00:00:00Z
  executor = "docker"
  [runners.custom_build_dir]
  [runners.cache]
    MaxUploadedArchiveSize = 0
    [runners.cache.s3]
    [runners.cache.gcs]
    [runners.cache.azure]
  [runners.docker]
    tls_verify = false
    image = "ruby:2.7"
    volumes = ["/cache"]
"""


def test_file_of_17_with_its_empty_tables() -> None:
    """Empty tables of 17.x stay; keys that are wanted in them are added."""
    done = reconcile(
        OLD_STYLE,
        top={"concurrent": 4},
        runners=[wanted(custom_build_dir={"enabled": True}, docker={"privileged": True})],
    )
    assert done.text == OLD_STYLE.replace("concurrent = 1", "concurrent = 4").replace(
        "[runners.custom_build_dir]\n", "[runners.custom_build_dir]\n    enabled = true\n"
    ).replace('volumes = ["/cache"]\n', 'volumes = ["/cache"]\n    privileged = true\n')
    assert not reconcile(OLD_STYLE, top={}, runners=[wanted(custom_build_dir={})]).changed


def test_volumes_as_wanted_without_cache() -> None:
    """Only `gitlab-runner register` appends `/cache`: here the volumes are exactly the wanted ones."""
    done = reconcile(OLD_STYLE, top={}, runners=[wanted(docker={"volumes": ["/certs/client"]})])
    assert tomllib.loads(done.text)["runners"][0]["docker"]["volumes"] == ["/certs/client"]


BY_HAND = f"""\
# Our runners. Ask Ana before you touch this.
concurrent   =   2     # two cores
listen_address = ':9252'


# --- the builder ---
[[runners]]
name = "docker-runner-1"
url = "{URL}/"
token = '{TOKEN}'   # from the UI
executor = "docker"
# limit = 3
docker.image = "docker:28" # pinned
docker.volumes = [
    "/certs/client",   # dind
    "/cache",
]
cache = {{ Type = "s3", s3 = {{ BucketName = "b", SecretKey = "sk" }} }}  # inline

[session_server]   # in between
session_timeout = 900

# --- somebody else's ---
  [[ runners ]]
  "name" = "theirs"
  url = "https://other.example.com"
  token = "{TOKEN}"
  [runners."docker"]
    image = '''
x'''
# the end, no newline"""


def test_by_hand_converged() -> None:
    """Dotted keys, inline tables, a slash behind the URL and literal strings mean the same."""
    done = reconcile(
        BY_HAND,
        top={"concurrent": 2},
        runners=[wanted(executor="docker", docker={"image": "docker:28", "volumes": ["/certs/client", "/cache"]})],
    )
    assert not done.changed


@pytest.mark.parametrize(
    ("settings", "old", "new"),
    [
        ({"docker": {"image": "docker:29"}}, '"docker:28" # pinned', '"docker:29" # pinned'),
        (
            {"docker": {"privileged": True}},
            '    "/cache",\n]\n',
            '    "/cache",\n]\ndocker.privileged = true\n',
        ),
        ({"cache": {"s3": {"SecretKey": "new"}}}, 'SecretKey = "sk"', 'SecretKey = "new"'),
        ({"cache": {"Shared": True}}, '"sk" } }', '"sk" }, Shared = true}'),
        ({"limit": 3}, 'SecretKey = "sk" } }  # inline\n', 'SecretKey = "sk" } }  # inline\nlimit = 3\n'),
        (
            {"docker": {"volumes": ["/cache", "/x"]}},
            '[\n    "/certs/client",   # dind\n    "/cache",\n]',
            '[\n    "/cache",\n    "/x",\n]',
        ),
        (
            {"feature_flags": {"FF": True}},
            "# inline\n",
            "# inline\n[runners.feature_flags]\nFF = true\n",
        ),
    ],
    ids=["dotted", "dotted-new", "inline-deep", "inline-new", "key-new", "array-lines", "table-new"],
)
def test_by_hand_one_change(settings: dict[str, Any], old: str, new: str) -> None:
    """Each notation is changed in its own form; all other bytes stay."""
    assert reconcile(BY_HAND, top={}, runners=[wanted(**settings)]).text == BY_HAND.replace(old, new)


def test_by_hand_top_keys() -> None:
    """A top key keeps its spacing and comment; a new one goes behind the last; no newline at the end stays so."""
    done = reconcile(BY_HAND, top={"concurrent": 4, "check_interval": 3}, runners=[])
    assert done.text == BY_HAND.replace("concurrent   =   2     #", "concurrent   =   4     #").replace(
        "':9252'\n", "':9252'\ncheck_interval = 3\n"
    )


def test_windows_line_ends_stay() -> None:
    """A file with CRLF keeps it, in new lines too."""
    text = OLD_STYLE.replace("\n", "\r\n")
    done = reconcile(
        text, top={"concurrent": 3, "log_level": "info"}, runners=[wanted(limit=2), wanted("glrt-2", "two")]
    )
    assert "\n" not in done.text.replace("\r\n", "")
    assert len(entries(done.text)) == 2


def test_byte_order_mark_stays() -> None:
    """gitlab-runner skips it, and so do we."""
    done = reconcile("\ufeff" + OLD_STYLE, top={"concurrent": 3}, runners=[])
    assert done.text == "\ufeff" + OLD_STYLE.replace("concurrent = 1", "concurrent = 3")


def test_registered_twice_becomes_one() -> None:
    """A second entry with the same token and server is removed; the one with our name is kept and updated."""
    twice = OLD_STYLE + OLD_STYLE[OLD_STYLE.index("\n[[runners]]") :].replace("docker-runner-1", "again")
    done = reconcile(twice, top={}, runners=[wanted(limit=2)])
    assert [entry.name for entry in entries(done.text)] == ["docker-runner-1"]
    assert [action.summary for action in done.actions] == [
        "docker-runner-1: set limit",
        f"remove runner again ({URL}): registered twice",
    ]


def test_ten_runners_one_changed() -> None:
    """One of ten entries is changed; the others stay byte for byte."""
    entry = OLD_STYLE[OLD_STYLE.index("\n[[runners]]") :]
    ten = "concurrent = 10\n" + "".join(
        entry.replace(TOKEN, f"glrt-{n}").replace("runner-1", f"r{n}") for n in range(10)
    )
    done = reconcile(ten, top={}, runners=[wanted("glrt-4", "docker-r4", docker={"image": "x"})])
    parts = ten.split("\n[[runners]]")
    parts[5] = parts[5].replace("ruby:2.7", "x")
    assert done.text == "\n[[runners]]".join(parts)


def test_another_token_is_another_runner() -> None:
    """A name does not identify a runner: an entry with the same name and another token stays."""
    done = reconcile(OLD_STYLE, top={}, runners=[wanted("glrt-new")])
    assert done.text.startswith(OLD_STYLE)
    assert [entry.token for entry in entries(done.text)] == [TOKEN, "glrt-new"]


def test_same_token_on_another_server_is_another_runner() -> None:
    """A token belongs to its server."""
    done = reconcile(
        BY_HAND, top={}, runners=[WantedRunner("theirs", "https://other.example.com", TOKEN, {"limit": 1})]
    )
    assert tomllib.loads(done.text)["runners"][0] == tomllib.loads(BY_HAND)["runners"][0]
    assert tomllib.loads(done.text)["runners"][1]["limit"] == 1


@pytest.mark.parametrize("known", [{"previous": (fingerprint(TOKEN),)}, {"id": 1}], ids=["fingerprint", "number"])
def test_rotation_swaps_the_token_alone(known: dict[str, Any]) -> None:
    """An entry that is ours by its old token or its number gets the new token, and nothing else changes."""
    done = reconcile(OLD_STYLE, top={}, runners=[WantedRunner("docker-runner-1", URL, "glrt-new", {}, **known)])
    assert done.text == OLD_STYLE.replace(TOKEN, "glrt-new")


def test_a_token_that_is_not_known() -> None:
    """A runner created through the API earlier: its settings are updated, its token stays."""
    runner = WantedRunner("docker-runner-1", URL, None, {"limit": 1}, previous=(fingerprint(TOKEN),))
    done = reconcile(OLD_STYLE, top={}, runners=[runner])
    assert done.text == OLD_STYLE.replace('executor = "docker"\n', 'executor = "docker"\n  limit = 1\n')
    with pytest.raises(Refused, match="its token is not known"):
        reconcile("", top={}, runners=[runner])


def test_dropped_entry_goes_and_comments_above_stay() -> None:
    """An entry that we wrote and no longer want is removed with its tables; the comments around it stay."""
    done = reconcile(BY_HAND, top={}, runners=[], dropped=[RunnerId(URL, fingerprint(TOKEN))])
    start, end = BY_HAND.index("[[runners]]"), BY_HAND.index("[session_server]")
    assert done.text == BY_HAND[:start] + BY_HAND[end - 1 :]
    assert done.actions[0].kind == "delete"


def test_dropping_an_unknown_runner_changes_nothing() -> None:
    """Dropping a runner that has no entry changes nothing."""
    assert not reconcile(
        BY_HAND, top={}, runners=[], dropped=[RunnerId(URL, fingerprint("other")), RunnerId(URL, id=9)]
    ).changed


def test_owned_keys_go() -> None:
    """Keys that we set and no longer want are removed, at the top too; an empty table is removed with its last key."""
    done = reconcile(
        OLD_STYLE.replace("ruby", "r"),
        top={},
        runners=[wanted()],
        owned_top=["check_interval", "session_server.session_timeout", "never_there"],
        owned_keys={"docker-runner-1": ["docker.image", "cache.MaxUploadedArchiveSize", "docker.never"]},
    )
    assert done.text == OLD_STYLE.replace("check_interval = 0\n", "").replace(
        "[session_server]\n  session_timeout = 1800\n\n", ""
    ).replace("    MaxUploadedArchiveSize = 0\n", "").replace('    image = "ruby:2.7"\n', "")


def test_dotted_keys() -> None:
    """The keys that settings set, quoted where they hold dots."""
    assert list(dotted_keys({"docker": {"image": "x", "sysctls": {"net.a": "1"}}, "b": {}, "e": ["A=b"]})) == [
        "docker.image",
        'docker.sysctls."net.a"',
        "b",
        "e",
    ]


def test_runners_as_inline_array() -> None:
    """Even `runners = [{…}]` is edited in place."""
    one, two = (
        f'{{ name = "{name}", url = "{URL}", token = "{token}" }}' for name, token in [("a", "t1"), ("b", "t2")]
    )
    text = f"runners = [ {one}, {two} ] # odd\n"
    done = reconcile(
        text,
        top={},
        runners=[wanted("t2", "b", limit=1), wanted("t3", "c")],
        dropped=[RunnerId(URL, fingerprint("t1"))],
    )
    assert [entry.name for entry in entries(done.text)] == ["b", "c"]
    assert done.text.endswith("# odd\n")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("concurrent = \n", "line 1, column 14"),
        ("a = 1\na = 2\n", "line 2, column 6"),
        ("a = 1\n[[runners]\n", "line 2, column"),
        ('a = "open', "line 1, column 10"),
        ("[[runners]]\n  token = glrt-1\n", "line 2, column 11"),
    ],
)
def test_broken_file_is_refused_with_its_place(text: str, place: str) -> None:
    """A file that is not valid TOML is not edited; the message names line and column."""
    with pytest.raises(Refused, match=place) as refusal:
        reconcile(text, top={}, runners=[])
    assert "glrt-1" not in str(refusal.value)


@pytest.mark.parametrize("text", ["runners = 5\n", "[runners]\nname = 'x'\n", "runners = [1]\n"])
def test_runners_of_another_shape_are_refused(text: str) -> None:
    """`[runners]` for `[[runners]]` is a frequent mistake: it is reported and not overwritten."""
    with pytest.raises(Refused, match="not an array of tables"):
        reconcile(text, top={}, runners=[])


@pytest.mark.parametrize("names", ["ab", "aa"])
def test_two_wanted_with_one_token_are_refused(names: str) -> None:
    """One token cannot be two runners."""
    with pytest.raises(Refused, match="share one token"):
        reconcile("", top={}, runners=[wanted(name=name, limit=n) for n, name in enumerate(names)])


@pytest.mark.parametrize(
    ("url", "changed"),
    [
        ("https://gitlab.example.com/", False),
        ("https://GitLab.example.com:443", False),
        ("https://gitlab.example.com:8443", True),
        ("http://gitlab.example.com", True),
        ("https://gitlab.example.com/gitlab", True),
    ],
)
def test_urls_of_one_server(url: str, changed: bool) -> None:
    """A slash at the end, the default port and the host's case do not make another server."""
    assert reconcile(OLD_STYLE, top={}, runners=[WantedRunner("docker-runner-1", url, TOKEN)]).changed == changed


@pytest.mark.parametrize("value", [None, Secret("wrapped"), object()])
def test_values_that_toml_cannot_hold(value: object) -> None:
    """They are refused before anything is written, above all a secret that is not revealed."""
    with pytest.raises(TypeError, match="cannot be written in TOML"):
        reconcile("", top={}, runners=[wanted(docker={"image": value})])


def test_secrets_are_not_printed() -> None:
    """Neither the wanted runner nor the result prints a token or a key."""
    runner = wanted(cache={"s3": {"SecretKey": "canary"}})
    done = reconcile("", top={}, runners=[runner])
    assert "canary" in done.text
    assert "canary" not in repr(runner) + repr(done) + str(done.actions)


def test_no_change_imports_no_other_parser() -> None:
    """A run without changes imports only the standard library's parser."""
    code = (
        "import sys; from provision.editing.toml import reconcile, WantedRunner;"
        f"r = reconcile({OLD_STYLE!r}, top={{}}, runners=[WantedRunner('docker-runner-1', {URL!r}, {TOKEN!r})]);"
        "assert not r.changed; print('tomlkit' in sys.modules or 'tree_sitter' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "False\n"


def test_a_byte_order_mark_stays() -> None:
    """gitlab-runner takes it."""
    done = reconcile("\ufeffconcurrent = 1 # by hand\n", top={"concurrent": 5}, runners=[])
    assert done.text == "\ufeffconcurrent = 5 # by hand\n"

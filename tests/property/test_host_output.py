"""Everything that reads what a host sent, given arbitrary bytes: a result or a ProvisionError, in bounded time and memory.

The frame protocol is read by `Splitter`, `Answers` and `Handshake`. Output of commands is read by the resources' `plan`,
by `split` of batch queries and by the engine's `Observer`; so are the records of state.json, whose file a host holds.
"""

from __future__ import annotations

import datetime
import gzip
import importlib
import inspect
import json
import pkgutil
import time
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import provision.resources
from provision import image_name
from provision.engine.desired_state import Owned
from provision.engine.observe import Observer
from provision.errors import ProbeFailed, ProvisionError
from provision.formats.build_context import Context
from provision.gitlab.api import Api
from provision.gitlab.runners import RunnerCreator
from provision.host.docker import RegistryAccess
from provision.host.pending import Handler, read_pending
from provision.host.state import ASK_STATE, HostState
from provision.resources import base
from provision.resources.base import ApiQuery, BatchQuery, Known, Observation, Resource
from provision.resources.delivery.accounts import GitlabGroup, GitlabProject, GitlabUser
from provision.resources.delivery.deployment import Deployment, DroppedApps
from provision.resources.delivery.image import BuiltImage, ImageCheck, UnusedImages
from provision.resources.delivery.pipeline import LocalPipeline, PipelineFile
from provision.resources.delivery.project import ProjectSettings
from provision.resources.delivery.source import ProjectSource
from provision.resources.docker import DistributionDocker, JsonSettings
from provision.resources.gitlab.api_token import ApiToken
from provision.resources.gitlab.certificates import (
    AcmeCertificate,
    CertificatePair,
    DefaultPair,
    ServedCertificate,
    UploadedPair,
)
from provision.resources.gitlab.gitlab_rb import CONTENT_LIMIT, RubySettings, read_gitlab_rb
from provision.resources.gitlab.registry import RegistryEndpoint, RegistryStorage, UpgradePath
from provision.resources.gitlab.s3_bucket import S3Bucket
from provision.resources.runner.entries import RunnerEntries, RunnerEntry, RunnerSettings
from provision.resources.system.apt_source import AptSource
from provision.resources.system.download import Download
from provision.resources.system.file import Absent, AskFile, ConfigFragment, Directory, File, ask_file
from provision.resources.system.firewall import Firewall, Rule
from provision.resources.system.packages import Packages
from provision.resources.system.proxy import ProxyFile
from provision.resources.system.systemd import AbsentUnit, AskUnit, Service, Unit, ask_unit
from provision.resources.system.trusted_ca import TrustedCa
from provision.resources.system.user import GroupMember, User
from provision.secret import Secret
from provision.shell import Command, Result
from provision.ssh.bootstrap import GREETING, Handshake
from provision.ssh.frame import Answers, Marker, Splitter
from provision.testing import FakeSession
from provision.url import Url

# Without shrinking, which takes minutes: the first failing example is short enough.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
FUZZ = settings(max_examples=60, deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))
NONCE = b"n" + b"0123456789abcdef" * 2
API = Api(Url.parse("https://gitlab.example.com"), Secret("glpat-fuzz-0000000000"))
IMAGE = image_name.parse("registry.example.com/app:1")
REGISTRY = RegistryAccess("https://registry.example.com", "user", Secret("registry-password"))
PAIR = CertificatePair("/etc/ssl/full.pem", "/etc/ssl/key.pem", "example.com")
RUN = Handler("run", "run", Command(":"))

SAMPLES: list[Resource] = [
    Deployment("app", IMAGE, REGISTRY),
    Deployment("app", IMAGE, REGISTRY, pull=False),
    DroppedApps(("app",)),
    BuiltImage(IMAGE, ("1", "2"), Context(Path()), "sha", REGISTRY),
    BuiltImage(IMAGE, ("1",), Context(Path()), "sha", REGISTRY, push=False),
    ImageCheck(Url.parse("https://registry.example.com"), "user", Secret("registry-password"), "x", "/ca"),
    UnusedImages(7),
    JsonSettings("/etc/docker/daemon.json", {"debug": True, "proxies": {"http-proxy": Secret("http://u:pw@x")}}),
    AcmeCertificate("example.com", "a@example.com", "https://acme.example.com", PAIR, 5050),
    PAIR,
    DefaultPair(PAIR, PAIR),
    ServedCertificate("/etc/ssl/full.pem", "example.com", 5050),
    UploadedPair("/f", "/k", b"certificate", Secret("private-key"), datetime.timedelta(days=3), "example.com", 5050),
    UpgradePath("19.3.0-*"),
    ApiToken(("api",), API),
    ApiToken((), API, Secret("root-password")),
    RubySettings({("external_url",): "https://x", ("registry", "storage"): {"s3": {"bucket": "b"}}}, (RUN,)),
    RegistryEndpoint(Url.parse("https://registry.example.com"), "https://gitlab.example.com/jwt/auth", RUN),
    RegistryStorage({"bucket": "b", "regionendpoint": "https://s3.example.com"}),
    S3Bucket("b", "eu", None, "key", Secret("secret-key")),
    RunnerEntries(
        (
            RunnerEntry("r", "https://gitlab.example.com", {"limit": 1}, Secret("glrt-token-of-r-0000")),
            RunnerEntry("s", "https://gitlab.example.com", {}, None, RunnerCreator(API, {"description": "s"})),
        ),
        {"concurrent": 4},
    ),
    AptSource("docker", "https://download.docker.com/linux/{id}", "{codename}", "stable", key="not a key", pin=("a",)),
    AptSource("x", "https://example.com", "s", "c", key_url="https://example.com/key", fingerprints=("A" * 40,)),
    Download("https://example.com/x", "/usr/bin/x", "0" * 64),
    Download("https://example.com/x.tgz", "/usr/bin/x", "0" * 64, extract="x"),
    Absent("/x"),
    Directory("/x"),
    File("/x", "content\n"),
    Firewall([Rule(80), Rule("6000:6007", "udp", "10.0.0.0/8")], enable=True),
    ConfigFragment("/etc/x", "x"),
    Packages(["ufw", "htop"], version="1.*", hold=True, conflicting=("y",)),
    DistributionDocker(("docker.io",)),
    AbsentUnit("x"),
    Service("x"),
    Unit("x", content="[Service]\nExecStart=/usr/bin/x\n"),
    TrustedCa("x", b"-----BEGIN CERTIFICATE-----\nAAAA\nBBBB\n-----END CERTIFICATE-----\n"),
    GroupMember("bob", "staff"),
    ProxyFile("/etc/apt/apt.conf.d/95proxy", Secret("Acquire::http::Proxy x\n")),
    ProxyFile("/etc/apt/apt.conf.d/95proxy", None),
    User("bob", system=True, home="/home/bob", shell="/bin/sh", groups=("staff",)),
]
# What these read comes from GitLab's API or from this machine; no command's output is read.
NO_HOST_OUTPUT = (
    LocalPipeline,
    PipelineFile,
    ProjectSettings,
    RunnerSettings,
    GitlabGroup,
    GitlabProject,
    GitlabUser,
    ProjectSource,
)

# What programs print, so that parsers come further than with random bytes.
WORDS = [
    *(b"\n", b"\n\n", b" ", b"\t", b"|", b":", b"=", b"\0", b"\xff", b"\xc2\xb2", b"-", b"0", b"1", b"99999999999999999999"),
    *(b"present", b"absent", b"other", b"file", b"missing", b"missing curl", b"0644", b"0644 root:root", b"0999 a:b"),
    *(b"ubuntu", b"debian", b"noble", b"24.04", b"amd64", b"ufw", b"gitlab-ce", b"19.3.0-ce.0", b"x.y", b"ii ", b"hi "),
    *(b"### tuple ### allow tcp 80 0.0.0.0/0 any 0.0.0.0/0 in", b"/etc/ufw/user.rules ", b"/x/other.rules ", b"SSH=1 2 3 22"),
    *(b"ENABLED=yes", b"IPV6=no", b"GUARD=armed", b"web 0.0.0.0:8080->80/tcp", b"x 1.2.3.4:9-99->-/udp", b"a:--->1/tcp"),
    *(b"LoadState=loaded", b"ActiveState=active", b"UnitFileState=enabled", b"NeedDaemonReload=yes"),
    *(b"bob:x:1000:1000::/home/bob:/bin/sh", b"bob:x:y:1000::/home/bob:/bin/sh", b"bob:x", b"group exists"),
    *(b"docker: not found", b"app|running|app|f|sha256:1|img", b"a|b|c|d", b"container|id|1.2.3MB|x", b"image|id|.|x"),
    *(b"tag 1 sha256:abc", b"tag 1 ? broken", b"local ", b"sha256:0", b"? unknown", b"HTTP/1.1", b"401", b"200"),
    *(b"www-authenticate: Bearer realm=", b"403 0 https://gitlab.example.com - text/html", b"x y z", b"000 6 u t"),
    *(b"Date: Mon, 99 Jan 2026 00:00:00 GMT", b"date: x", b"{", b"}", b"[", b"]", b'"a"', b",", b"[[runners]]", b'name = "r"'),
    *(b"runners = 3", b"token = 1", b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----", b"AAAA", b"#"),
    *(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n", b"-----END PGP PUBLIC KEY BLOCK-----", b"\x98\x33\x04", b"\xc2\x05"),
    *(b"registry['storage'] = {", b"external_url 'x'", b"<<~EOF", b"Types: deb", b"URIs: https://download.docker.com"),
    *(b"deb [signed-by=/x] https://download.docker.com/linux/debian noble stable", b"file /etc/apt/x.list", b"file "),
]  # fmt: skip
texts = st.one_of(
    st.binary(max_size=300),
    st.lists(st.sampled_from(WORDS), max_size=25).map(b"".join),
    st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=6)), max_size=25).map(b" ".join),
    st.lists(st.sampled_from(WORDS), max_size=25).map(b"\n".join),
    st.lists(st.sampled_from(WORDS), max_size=15).map(b"\n".join).map(lambda one: gzip.compress(one, mtime=0)),
)
results = st.builds(Result, texts, texts, st.sampled_from([0, 0, 0, 1, 2, 6, 28, 60, 127, 255]))
records = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8),
        st.sampled_from(["80/tcp", "x/y from z", "gitlab.rb", "made", "runners", "file", "archive", "0" * 64]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["runners", "top", "url", "id", "keys", "made", "fingerprint", "archive", "file", "digest", "r"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=8,
)  # fmt: skip


def label(value: object) -> str:
    """A name for a test."""
    return type(value).__name__


def concrete(kind: type) -> Iterator[type]:
    """The shipped classes below a class that can be used."""
    for one in kind.__subclasses__():
        if one.__module__.startswith("provision.") and not inspect.isabstract(one):
            yield one
        yield from concrete(one)


def test_every_resource_and_batch_query_is_fuzzed() -> None:
    """A new one must be added to the samples."""
    for module in pkgutil.walk_packages(provision.resources.__path__, "provision.resources."):
        importlib.import_module(module.name)
    fuzzed = {type(one) for one in SAMPLES} | set(NO_HOST_OUTPUT)
    assert set(concrete(Resource)) <= fuzzed | {Resource}
    assert set(concrete(BatchQuery)) == {AskFile, AskUnit}


@pytest.mark.parametrize("sample", SAMPLES, ids=label)
@FUZZ
@given(data=st.data())
def test_output_of_commands(sample: Resource, data: st.DataObject) -> None:
    """A resource plans, or raises a ProvisionError, whatever its questions were answered and whatever is recorded."""
    due = data.draw(st.booleans())
    # What an API answers is data of our client, not a host's output.
    answers: dict[str, Any] = {
        name: None if isinstance(one, ApiQuery) else data.draw(results, name)
        for name, one in sample.probe().questions(due).items()
    }
    known = Known(
        data.draw(records, "record"),
        data.draw(st.dictionaries(st.text(max_size=5), records, max_size=2), "others"),
        data.draw(st.dictionaries(st.sampled_from(["app x", "config.toml", "x"]), records, max_size=2), "records"),
        frozenset(),
        due,
    )
    started = time.monotonic()
    try:
        changes = [one for one in sample.plan(Observation(answers, known)) if isinstance(one, base.Change)]
        for one in changes:
            if one.record_from is not None:
                one.record_from(data.draw(texts).decode("utf-8", "surrogateescape"))
    except ProvisionError:
        pass
    assert time.monotonic() - started < 20


@FUZZ
@given(result=results, count=st.integers(1, 5))
def test_batch_queries(result: Result, count: int) -> None:
    """An answer to several questions is split into that number, or not at all."""
    batches: list[tuple[type[BatchQuery], Sequence[Any]]] = [
        (AskFile, [ask_file(f"/{number}") for number in range(count)]),
        (AskUnit, [ask_unit(str(number)) for number in range(count)]),
    ]
    for kind, questions in batches:
        found = kind.split(questions, result)
        assert found is None or len(found) == count


@FUZZ
@given(text=st.one_of(texts, records.map(repr).map(str.encode), st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000])))
def test_state_and_pending(text: bytes) -> None:
    """The engine reads state.json and `pending`: a state, or ProbeFailed."""
    decoded = text.decode("utf-8", "surrogateescape")
    assert isinstance(read_pending(decoded), dict)
    session = FakeSession({ASK_STATE.script: Result(text), "": ""})
    observer = Observer(session)
    item = Owned("t", SAMPLES[0])
    try:
        state = observer.state
        state.updated("t", {"a": 1}).text()
        assert bytes.fromhex(observer._known(item).fingerprint_key())
    except ProbeFailed:
        pass


@FUZZ
@given(record=records)
def test_state_with_records_of_any_type(record: Any) -> None:
    """Wrong types anywhere in the file."""
    for tree in (
        record,
        {"version": 2, "owners": record},
        {"version": 2, "owners": {"t": record}},
        {"version": 2, "shared": {"fingerprint key": record}},
        {"version": 2, "unowned": record},
        {"version": record},
        {"gitlab.rb/x": record, "fingerprint key": record},
    ):
        try:
            state = HostState.parse(json.dumps(tree))
        except ValueError:
            continue
        assert bytes.fromhex(state.fingerprint_key)
        state.merged(state.updated("t", {"x": record})).text()


def test_gitlab_rb_that_would_be_gigabytes() -> None:
    """512 MiB of zeros in gzip are refused after the limit; a corrupt and a short file are refused."""
    block = bytes(1 << 20)
    packed = gzip.compress(block, 9)
    squeeze = zlib.compressobj(1, wbits=31)
    bomb = b"".join(squeeze.compress(block) for _ in range(512)) + squeeze.flush()
    tracemalloc.start()
    try:
        for content in (bomb, bomb[:1000], packed[:100], b"\x1f\x8bgarbage", b"x"):
            with pytest.raises(ProbeFailed, match=r"^/etc/gitlab/gitlab\.rb"):
                read_gitlab_rb(Observation({"file": Result(content)}))
        assert tracemalloc.get_traced_memory()[1] < 4 * CONTENT_LIMIT
    finally:
        tracemalloc.stop()
    assert read_gitlab_rb(Observation({"file": Result(packed)})) == block


# -- the frame protocol ----------------------------------------------------------------------

pieces = st.one_of(
    st.binary(max_size=60),
    st.just(NONCE),
    st.sampled_from(
        [b" 1.0 0\n", b" 1.1 0\n", b" 1.end 0\n", b" 1.0 x\n", b" greeting 0 none\n", b" greeting\n", b"\n"]
    ),
    st.sampled_from(
        [b" 1.0 99999999999999999999999999\n", b" 1.0 \xc2\xb2\n", b" 2.0 0\n", b" 1.-1 0\n", b"1." + b"9" * 5000]
    ),
    st.just(b"x" * 5000),
    st.binary(min_size=1, max_size=8).map(lambda one: NONCE + b" 1.0 " + one + b"\n"),
)


@FUZZ
@given(
    stream=st.lists(pieces, max_size=30), cuts=st.lists(st.integers(1, 400), max_size=40), streamed=st.integers(0, 2)
)
def test_the_reading_side_of_the_protocol(stream: list[bytes], cuts: list[int], streamed: int) -> None:
    """Arbitrary bytes on both outputs: results, an error of the handshake, or a ProvisionError."""
    handshake = Handshake("web1", "root", NONCE.decode(), False, False)
    answers = Answers(1, 2, streamed=streamed)

    def output(side: int, piece: bytes) -> None:
        if handshake.greeted_on(side):
            answers.add_output(side, piece)
        else:
            handshake.add_output(side, piece)

    def marker(side: int, one: Marker) -> None:
        if one.key == GREETING:
            handshake.add_greeting(side, one.rest)
        else:
            answers.add_marker(side, one)

    splitters = [Splitter(NONCE, partial(output, side), partial(marker, side)) for side in (0, 1)]
    whole = b"".join(stream)
    try:
        for cut in [*cuts, len(whole)]:
            piece, whole = whole[:cut], whole[cut:]
            for splitter in splitters:
                splitter.feed(piece)
        handshake.check()
    except ProvisionError:
        pass
    assert len(answers.results) <= 2
    assert isinstance(answers.partial, Result)
    assert all(len(splitter._held) <= 5000 for splitter in splitters)


@pytest.mark.parametrize("piece", [b"x", NONCE[:-1], b"ab\n" * 7])
def test_small_pieces_take_linear_time_and_little_memory(piece: bytes) -> None:
    """A megabyte in tiny pieces is kept in one object, and each byte is looked at a constant number of times."""
    answers = Answers(1, 1)
    splitter = Splitter(NONCE, partial(answers.add_output, 0), partial(answers.add_marker, 0))
    started = time.monotonic()
    tracemalloc.start()
    try:
        for _ in range((1 << 20) // len(piece) // 16):
            splitter.feed(piece)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 60

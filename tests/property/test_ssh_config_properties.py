"""ssh_config files that are evaluated here give what `ssh -G` gives, for every host."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from provision.ssh.ssh_config_files import Evaluation, read

LOCAL_USER = pwd.getpwuid(os.getuid()).pw_name
HOSTS = ("web1", "web2", "WEB1", "db.corp", "192.0.2.1")
patterns = st.lists(
    st.sampled_from(
        ["web1", "web*", "!web1", "*", "web?", "*.corp", "!*.corp", "192.0.2.*", "WEB1", '"web1"', "db.corp"]
    ),
    min_size=1,
    max_size=3,
)
lists = patterns.map(lambda some: ",".join(some).replace('"', ""))
criteria = st.one_of(
    lists.map(lambda some: f"host {some}"),
    lists.map(lambda some: f"originalhost {some}"),
    lists.map(lambda some: f"!host {some}"),
    st.sampled_from(["user ops", "user o*,!ops", "!user ops", "localuser nobody-*", "!localuser nobody"]),
    lists.map(lambda some: f"host={some}"),
)
blocks = st.one_of(
    patterns.map(lambda some: f"Host {' '.join(some)}"),
    st.lists(criteria, min_size=1, max_size=3).map(lambda some: f"Match {' '.join(some)}"),
    st.just("Match all"),
)
values = st.one_of(
    st.sampled_from(["HostName %h.example.com", "HostName web1", "HostName = 192.0.2.9", "hostname=db.corp # comment"]),
    st.sampled_from(["User ops", "User 'ops'", 'User "o p"', "User ops # me", "User o#s"]),
    st.sampled_from(["Port 2200", "Port=2201", "Port  \t2202 # x"]),
    st.sampled_from(["ProxyJump b1", "ProxyJump none", "ProxyCommand nc %h # x", "ProxyCommand none"]),
    st.sampled_from(
        ["IdentitiesOnly yes", "IdentitiesOnly no", "HostKeyAlias a1", "IdentityFile ~/k", 'IdentityFile "/a b"']
    ),
    st.sampled_from(["# comment", "", "   ", "Include more", "Compression yes"]),
)
lines = st.lists(st.one_of(blocks, values, values, values), max_size=12).map("\n".join)


@given(
    first=lines,
    more=lines.filter(lambda text: "Include" not in text),
    host=st.sampled_from(HOSTS),
    user=st.sampled_from([None, "ops"]),
)
@settings(max_examples=150, deadline=None)
@example(first="Match host web1\nUser ops", more="", host="WEB1", user=None)
@example(first="HostName %h.X\nMatch host web1.x\nUser ops", more="", host="WEB1", user=None)
@example(first="Match originalhost WEB1\nUser ops", more="", host="WEB1", user=None)
@example(first="ProxyJump none\nProxyCommand nc %h\nProxyJump a", more="", host="web1", user=None)
@example(first="ProxyCommand none\nProxyJump a", more="", host="web1", user=None)
def test_the_evaluation_agrees_with_openssh(first: str, more: str, host: str, user: str | None) -> None:
    """Name, user, port, jump, command, and every file, with conditional includes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config")
        file.write_text(first.replace("Include more", f"Include {folder}/more") + "\n")
        Path(folder, "more").write_text(more + "\n")
        command = ["ssh", "-F", file, *(["-l", user] if user else []), "-G", host]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        evaluation = Evaluation(host, user, None, LOCAL_USER)
        evaluation.add(read(file, Path(folder)))
    assert done.returncode == 0, done.stderr
    right: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        right.setdefault(keyword, []).append(value)
    found = {keyword: [" ".join(value) for value in some] for keyword, some in evaluation.values.items()}
    assert evaluation.hostname.lower() == right["hostname"][0]
    for keyword, default in (("port", "22"), ("user", LOCAL_USER), ("identitiesonly", "no"), ("hostkeyalias", "none")):
        assert found.get(keyword, [default])[0] == right.get(keyword, [default])[0], keyword
    for keyword in ("proxyjump", "proxycommand"):
        assert found.get(keyword, ["none"])[0] == right.get(keyword, ["none"])[0], keyword
    if "identityfile" in found:
        assert list(dict.fromkeys(found["identityfile"])) == right["identityfile"]
    else:
        assert len(right["identityfile"]) > 3

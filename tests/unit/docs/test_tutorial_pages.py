"""The tutorial's two languages show the same files and commands, so what is run for one holds for both; the quick start."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from provision.engine.catalogue import load_inventory
from provision.inventory.tables.projects import Project, check_runners
from provision.inventory.tables.runners import Runner
from provision.tasks import SHIPPED
from tests.support.pages import block
from tests.support.tutorial import DOCS, steps


def test_both_languages_show_the_same() -> None:
    """Block by block; comments at the end of a line are translated."""
    english, portuguese = (
        [replace(one, text=re.sub(r" +# .*$", "", one.text, flags=re.MULTILINE)) for one in steps(page)]
        for page in ("tutorial.md", "tutorial.pt-BR.md")
    )
    assert english == portuguese
    assert sum(len(one.commands) for one in english) >= 15


def test_both_have_the_same_sections() -> None:
    """As many headings, and as many rows in their tables."""
    counts = [
        (len(re.findall(r"^## ", text, re.MULTILINE)), len(re.findall(r"^\|", text, re.MULTILINE)))
        for text in ((DOCS / name).read_text("utf-8") for name in ("tutorial.md", "tutorial.pt-BR.md"))
    ]
    assert counts[0] == counts[1]


def test_the_quick_start_of_the_readme(tmp_path: Path) -> None:
    """Its inventory needs no secret; each task of it has something to do; its commands are those of the tutorial."""
    file = tmp_path / "inventory.toml"
    file.write_text(block("../README.md", "A small inventory."))
    (tmp_path / "hello").mkdir()
    (tmp_path / "hello/app.js").write_text("")
    inventory = load_inventory([file])
    assert len(inventory.hosts) == 21
    concerned = {
        one.name
        for one in SHIPPED
        for host in inventory.hosts
        if one.on in (*host.groups, "all") and one.concerns(host) and one.resources(host)
    }
    assert {"access", "accounts", "project", "source", "register", "registry", "verify"} <= concerned
    typed = {
        re.sub(r"-i \S+|  +#.*", "", line).strip() for line in block("../README.md", "## Quick start").splitlines()
    }
    known = {re.sub(r"-i \S+ ?", "", line).strip() for one in steps("tutorial.md") for line in one.commands}
    assert {"provision all --check --diff", "provision all"} <= {re.sub(" +", " ", one) for one in typed} & known


def test_the_other_way_to_build(tmp_path: Path) -> None:
    """With socket.toml, runner and pipeline use the host's Docker, and fit each other as those before do."""
    for step in steps("tutorial.md"):
        if step.path:
            file = tmp_path / step.path
            file.parent.mkdir(exist_ok=True)
            file.write_text((file.read_text() if step.added else "") + step.text)
    files = [tmp_path / "inventory.toml", tmp_path / "socket.toml"]
    for given, build, way in ((files[:1], "dind", "/certs/client"), (files, "socket", "/var/run/docker.sock")):
        settings = load_inventory(given).hosts[0].settings
        (runner,), pipeline = settings.all(Runner), settings.named(Project)["sammy/hello"].pipeline
        assert pipeline is not None
        assert pipeline.build == build
        assert way in str(runner.docker)
        check_runners("the page", pipeline, [runner], named=True)

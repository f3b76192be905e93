"""The contenders: provision, pyinfra, ansible-core, and a plain `ssh host true`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.clock import Contender
from benchmarks.estate import WORKLOAD, Estate, Place, ansible_inventory, environment, pyinfra_hosts

PROVISION = str(Path(sys.executable).with_name("provision"))
SSH, ALL, PYINFRA, ANSIBLE = "ssh host true", "provision all", "pyinfra", "ansible-core"
SIXTEEN, MITOGEN, BY_HAND = "provision workload", "ansible-core with mitogen", "a shell script by hand"


def ssh(estate: Estate, places: Sequence[Place]) -> Contender:
    """OpenSSH to all hosts at once, without multiplexing."""
    options = ["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "ControlPath=none"]
    options += ["-o", f"UserKnownHostsFile={estate.known_hosts(places)}", "-i", str(estate.lab.identity_file)]
    commands = tuple(
        ("ssh", *options, "-p", str(one.port), f"{estate.lab.user}@{one.address}", "true") for one in places
    )
    return Contender(SSH, commands, lambda _: 0, WORKLOAD, environment())


def provision(estate: Estate, places: Sequence[Place], playbook: str, *, name: str = "") -> Contender:
    """provision with the start of Python; `playbook` on these hosts."""
    limit = ("--limit", ",".join(one.name for one in places)) if len(places) < len(estate.places) else ()
    command = (PROVISION, playbook, "-i", str(estate.inventory(places)), *limit)
    return Contender(name or f"provision {playbook}", (command,), _changed_by_provision, WORKLOAD, environment())


def pyinfra(estate: Estate, places: Sequence[Place], peers: Path) -> Contender:
    """pyinfra as its documentation shows it."""
    folder = WORKLOAD / "pyinfra"
    command = (str(peers / "bin/pyinfra"), "-y", "--sudo", str(folder / "inventory.py"), str(folder / "deploy.py"))
    env = environment({"BENCH_HOSTS": pyinfra_hosts(estate, places)})
    return Contender(PYINFRA, (command,), _changed_by_pyinfra, folder, env)


def ansible(estate: Estate, places: Sequence[Place], peers: Path, *, mitogen: bool = False) -> Contender:
    """ansible-core with pipelining and 8 forks, or with mitogen's strategy; its connections are closed after each run."""
    folder = WORKLOAD / "ansible"
    sockets = estate.folder / "s"  # a socket's path must be short
    sockets.mkdir(exist_ok=True)

    def close_connections() -> None:
        for socket in sockets.iterdir():
            subprocess.run(
                ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "any"], capture_output=True, check=False
            )
        for left in sockets.iterdir():
            left.unlink()

    command = (str(peers / "bin/ansible-playbook"), "-i", str(ansible_inventory(estate, places)), "playbook.yml")
    strategy = {}
    if mitogen:
        (plugins,) = peers.glob("lib/python3*/site-packages/ansible_mitogen/plugins/strategy")
        strategy = {"ANSIBLE_STRATEGY_PLUGINS": str(plugins), "ANSIBLE_STRATEGY": "mitogen_linear"}
    env = environment(
        {
            **strategy,
            "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(sockets),
            "ANSIBLE_HOME": str(estate.folder / "ansible"),
            "LC_ALL": "C.UTF-8",
        }
    )
    return Contender(MITOGEN if mitogen else ANSIBLE, (command,), _changed_by_ansible, folder, env, close_connections)


def first_run(inventories: Sequence[Path], playbook: str) -> Contender:
    """provision, with its events as JSON lines: round trips and the tasks' seconds are read from them."""
    files = [word for path in inventories for word in ("-i", str(path))]
    return Contender(
        f"provision {playbook}", ((PROVISION, playbook, *files, "--json"),), _changed_in_events, WORKLOAD, environment()
    )


def by_hand(estate: Estate, places: Sequence[Place]) -> Contender:
    """The workload as a shell script, over plain ssh on all hosts at once."""
    hosts = [f"{one.address}:{one.port}" for one in places]
    login = [str(estate.lab.identity_file), str(estate.known_hosts(places)), estate.lab.user]
    command = ("sh", str(WORKLOAD / "by_hand.sh"), *login, *hosts)
    return Contender(BY_HAND, (command,), lambda _: 0, WORKLOAD, environment())


def _changed_in_events(output: str) -> int:
    return int(json.loads(output.splitlines()[-1])["changed"])


def _changed_by_provision(output: str) -> int:
    if "Nothing to change" in output:
        return 0
    found = re.search(r"(\d+) changes?", output)
    if found is None:
        raise ValueError(f"provision reported neither changes nor that there were none:\n{output}")
    return int(found[1])


def _changed_by_pyinfra(output: str) -> int:
    found = re.search(r"Grand total\s+\d+\s+(\d+|-)", output)
    if found is None:
        raise ValueError(f"no table of pyinfra in:\n{output}")
    return 0 if found[1] == "-" else int(found[1])


def _changed_by_ansible(output: str) -> int:
    found = re.findall(r"changed=(\d+)", output)
    if not found:
        raise ValueError(f"no recap of ansible in:\n{output}")
    return sum(int(one) for one in found)


def help_durations(times: int = 11) -> list[float]:
    """The duration in seconds of each of `times` runs of `provision --help`."""
    durations = []
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run([PROVISION, "--help"], env=environment(), stdout=subprocess.DEVNULL, check=True)
        durations.append(time.perf_counter() - started)
    return durations

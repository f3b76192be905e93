"""The user's git, for the source of a project: what is to be pushed, what GitLab has, and the push.

All work is done in a private bare repository in a temporary folder. It reads the objects of a source that is a
repository. The source is not changed: its hooks, its remotes and its settings are not used. A plain folder is added to an index there.

The token reaches git through a pipe that the processes inherit: it is in no argument, variable, URL or file. git asks for
it only for GitLab's scheme, host and port, and follows no redirect. Sources: git-config(1), gitcredentials(7).
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from provision.errors import ApiFailed, ChangedMeanwhile, ProvisionError, Refused
from provision.gitlab.api import NO_PROJECT_HINT, Api

NAME: Final = "provision"
"""The author of the commits that are made here."""
_DEADLINE_SECONDS: Final = 60
_TRANSFER_SECONDS: Final = 1800
_KEPT: Final = ("PATH", "TMPDIR", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy")
# dash reads from descriptors above 9 only by their name. The pipe holds the token in several lines: each process that asks
# reads one.
_HELPER: Final = (
    '!f() { test "$1" = get && IFS= read -r token < "/dev/fd/$PROVISION_TOKEN" '
    '&& printf "username=oauth2\\npassword=%s\\n" "$token"; }; f'
)
_ANSWERS: Final = 8
# What `git lfs install` sets. Source: git-lfs-install(1).
_LFS: Final = {"clean": "git-lfs clean -- %f", "process": "git-lfs filter-process", "required": "true"}
_SYSTEM_BUNDLES: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_FETCH_FIRST: Final = re.compile(r"fetch first|non-fast-forward|cannot lock ref|failed to update ref")
_UNREACHABLE: Final = re.compile(r"The requested URL returned error: (\d+)")
_REASONS: Final = {
    "HTTP Basic: Access denied": "gitlab.api_token must be valid, and have the scope api or write_repository",
    "not allowed to push code to protected": "the branch is protected: give the token's owner the role Maintainer, or allow "
    "their role to push, in the project's settings",
    "does not yet exist for": "the first push needs the role Maintainer: give it to the token's owner",
    "not allowed to push code": "give the token's owner the role Maintainer in the project, and the token the scope api",
    "could not be found": NO_PROJECT_HINT,
    "LFS objects are missing": "install git-lfs, run `git lfs fetch --all` in the source, then rerun the command",
    "shallow update not allowed": "run `git fetch --unshallow` in the source: the server lacks commits before it",
    "certificate": "GitLab's certificate is not trusted here: give registry.certificate.ca",
}


@dataclass(frozen=True)
class Snapshot:
    """What a source holds.

    commit  the commit of its current branch; "" for a plain folder
    tree    its files, as git's id
    moment  when it was last changed, in git's format `@SECONDS +0000`
    """

    commit: str
    tree: str
    moment: str


@dataclass(frozen=True)
class ChangedFile:
    """A file that differs between two commits; `before` and `after` are the ids of its content, "" where it does not exist."""

    path: str
    before: str
    after: str


@dataclass(frozen=True)
class Workspace:
    """The private repository at `folder`, the source beside it, and the URL of the project's repository."""

    folder: Path
    source: Path
    api: Api
    url: str

    def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        deadline: int = _DEADLINE_SECONDS,
        token: bool = False,
    ) -> bytes:
        """The output of git here. Raises Refused, ApiFailed with GitLab's own reason, or ChangedMeanwhile."""
        env = {**self._environment, **(env or {})}
        return _run(self._command(arguments), self.source, stdin, env, deadline, self.api if token else None)

    def ask(self, *arguments: str) -> str:
        """The output as text, without the newline at its end."""
        return self.run(*arguments).decode(errors="replace").rstrip("\n")

    def holds(self, *arguments: str) -> bool:
        """Whether git ends with exit code 0. Raises Refused and ApiFailed as `run` does."""
        command = self._command(arguments)
        return _finished(command, self.source, b"", self._environment, _DEADLINE_SECONDS, None).returncode == 0

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return ["git", "--git-dir", str(self.folder), *arguments]

    @cached_property
    def _environment(self) -> dict[str, str]:  # once: `connected_address` may ask a name server
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        if self.api.connected_address or not self.api.url.tls:  # as the API's session: no proxy may read the token
            kept = {name: value for name, value in kept.items() if "proxy" not in name.lower()}
        fixed = {"HOME": str(self.folder), "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
        return {**kept, **fixed, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_ATTR_NOSYSTEM": "1"}

    @property
    def is_repository(self) -> bool:
        """Whether the source is a git repository, and not a plain folder."""
        return is_repository(self.source)

    def snapshot(self, extra: Mapping[str, str]) -> Snapshot:
        """The source with the files `extra`, by path. Raises Refused for a source that cannot be pushed."""
        index = {"GIT_INDEX_FILE": str(self.folder / "index")}
        if self.is_repository:
            commit = self.ask("rev-parse", "refs/heads/source")
            moment = f"@{self.ask('show', '--no-patch', '--format=%ct', commit)} +0000"
            self.run("read-tree", commit, env=index)
        else:
            commit, moment = "", self._add_folder(index)
        for path, text in extra.items():
            blob = self.run("hash-object", "-w", "--stdin", stdin=text.encode()).decode().strip()
            self.run("update-index", "--add", "--replace", "--cacheinfo", f"100644,{blob},{path}", env=index)
        return Snapshot(commit, self.run("write-tree", env=index).decode().strip(), moment)

    def _add_folder(self, index: Mapping[str, str]) -> str:
        env = {**index, "GIT_WORK_TREE": str(self.source)}
        self.run("-c", "advice.addEmbeddedRepo=false", "add", "--all", "--", ".", env=env, deadline=_TRANSFER_SECONDS)
        entries = self.run("ls-files", "--stage", "-z", env=index).decode("utf-8", "surrogateescape").split("\0")[:-1]
        names = {entry.partition("\t")[2]: entry[:6] for entry in entries}
        if not names:
            raise Refused(f"{self.source}: it has no files to push", hint="check the path, and the .gitignore in it")
        inner = [name for name, mode in names.items() if mode == "160000"]
        if inner:
            raise Refused(
                f"{self.source}: {inner[0]} is a git repository in a plain folder",
                hint=f"remove {inner[0]}/.git, add it to .gitignore, or make the source a repository with a submodule",
            )
        if any(_asks_for_lfs(self.source / name) for name in names if name.rpartition("/")[2] == ".gitattributes"):
            self._require_lfs()
        newest = max(int((self.source / name).lstat().st_mtime) for name in names)
        return f"@{newest} +0000"

    def _has_large_files(self, commit: str) -> bool:
        return self.holds("grep", "--quiet", "filter=lfs", commit, "--", ":(glob)**/.gitattributes")

    def _require_lfs(self) -> None:
        if shutil.which("git-lfs") is None:
            raise Refused(
                f"{self.source} has large files of Git LFS, and git-lfs is not installed on this machine",
                hint="install git-lfs",
            )

    def head(self, branch: str, *, whole: bool) -> str:
        """The id of a branch's commit in GitLab, which is fetched if it is not here; "" if the branch does not exist.

        whole  fetch the commits before it, too
        """
        listed = self.run("ls-remote", "--heads", self.url, f"refs/heads/{branch}", token=True).decode()
        commit = listed.partition("\t")[0]
        if commit and not self.holds("cat-file", "-e", f"{commit}^{{tree}}"):
            depth = [] if whole else ["--depth=1"]
            fetch = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", *depth, self.url, f"refs/heads/{branch}")
            self.run(*fetch, token=True, deadline=_TRANSFER_SECONDS)
        return commit

    def commit(self, snapshot: Snapshot, parents: list[str], message: str) -> str:
        """Makes a commit of a snapshot; its id. The same snapshot and parents give the same commit."""
        email = f"{NAME}@{self.api.url.host}"
        who = {"NAME": NAME, "EMAIL": email, "DATE": snapshot.moment}
        env = {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in who.items()}
        above = [word for one in parents for word in ("-p", one)]
        return self.run("commit-tree", snapshot.tree, *above, stdin=message.encode(), env=env).decode().strip()

    def is_ours(self, commit: str) -> bool:
        """Whether a commit was made here, in this or in an earlier run."""
        return self.ask("show", "--no-patch", "--format=%cn %ce", commit).startswith(f"{NAME} {NAME}@")

    def is_above(self, older: str, newer: str) -> bool:
        """Whether `newer` is `older`, or comes after it."""
        return self.holds("merge-base", "--is-ancestor", older, newer)

    def parent(self, commit: str) -> str:
        """The first parent of a commit; "" for none."""
        return next(iter(self.ask("rev-list", "--parents", "--max-count=1", commit).split()[1:]), "")

    def subject(self, commit: str) -> str:
        """A commit for a message: its id, its first line and its author."""
        return self.ask("show", "--no-patch", "--format=%h (%s, by %an)", commit)

    @property
    def is_dirty(self) -> bool:
        """Whether the source is a repository with changes of tracked files that are not committed."""
        if not self.is_repository or not (self.source / ".git").exists():
            return False
        command = ["git", "-C", str(self.source), "-c", "core.fsmonitor=false", "status", "--porcelain", "-uno"]
        return bool(_run(command, self.source, b"", _users_environment(), _DEADLINE_SECONDS, None))

    def changed(self, before: str, after: str) -> list[ChangedFile]:
        """The files that differ between two commits; all files if `before` is ""."""
        base = before or self.run("mktree").decode().strip()
        raw = self.run("diff-tree", "-r", "--raw", "-z", "--no-renames", "--no-abbrev", base, after)
        words = raw.decode("utf-8", "surrogateescape").split("\0")[:-1]
        found = []
        for head, path in zip(words[::2], words[1::2], strict=True):
            modes, ids = head[1:].split()[:2], head.split()[2:4]
            files = [one if mode[:2] in ("10", "12") else "" for mode, one in zip(modes, ids, strict=True)]
            found.append(ChangedFile(path, *files))
        return found

    def sizes(self, blobs: list[str]) -> dict[str, int]:
        """The size of files in bytes, by id."""
        asked = "\n".join([*blobs, ""]).encode()
        lines = self.run("cat-file", "--batch-check=%(objectname) %(objectsize)", stdin=asked).decode().splitlines()
        return {name: int(size) for name, size in map(str.split, lines)}

    def contents(self, blobs: list[str]) -> dict[str, bytes]:
        """The content of files, by id."""
        names = list(dict.fromkeys(blobs))
        raw, at, found = self.run("cat-file", "--batch", stdin="\n".join([*names, ""]).encode()), 0, {}
        for name in names:
            end = raw.index(b"\n", at)
            size = int(raw[at:end].split()[2])
            found[name] = raw[end + 1 : end + 1 + size]
            at = end + size + 2
        return found

    @property
    def is_shallow(self) -> bool:
        """Whether the source is a clone without its older commits."""
        return self.is_repository and (self.folder / "shallow").exists()

    def file(self, commit: str, path: str) -> str | None:
        """The text of a file in a commit; None if there is none."""
        place = f"{commit}:{path}"
        if not self.holds("cat-file", "-e", place):
            return None
        return self.run("cat-file", "blob", place).decode("utf-8", "replace")

    def push(self, commit: str, branch: str) -> None:
        """Pushes a commit to a branch, never by force, and before that its large files of Git LFS.

        Raises ChangedMeanwhile if another push was faster.
        """
        if self._has_large_files(commit):
            self._require_lfs()
            self.run("update-ref", "refs/heads/pushed", commit)
            self.run("lfs", "push", self.url, "pushed", token=True, deadline=_TRANSFER_SECONDS)
        self.run("push", "--quiet", self.url, f"{commit}:refs/heads/{branch}", token=True, deadline=_TRANSFER_SECONDS)


def _asks_for_lfs(attributes: Path) -> bool:
    return attributes.is_file() and b"filter=lfs" in attributes.read_bytes()


def is_repository(source: Path) -> bool:
    """Whether a folder is a git repository: with `.git`, or a bare one."""
    return (source / ".git").exists() or ((source / "HEAD").is_file() and (source / "objects").is_dir())


@contextmanager
def workspace(source: Path, api: Api, project: str) -> Iterator[Workspace]:
    """A private repository for a source and the project at a path in GitLab. It is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="provision-", ignore_cleanup_errors=True) as folder:
        made = Workspace(Path(folder), source, api, f"{api.url}/{project}.git")
        lent = _objects_of(source) if is_repository(source) else None
        form = [f"--object-format={lent.form}"] if lent and lent.form != "sha1" else []
        made.run("init", "--quiet", "--bare", "--template=", *form)
        made.folder.joinpath("config").open("a").write(_settings(api, made.folder))
        if lent is not None:
            made.folder.joinpath("objects/info").mkdir(exist_ok=True)
            made.folder.joinpath("objects/info/alternates").write_text(f"{lent.objects}\n")
            large = Path(lent.objects).parent / "lfs/objects"
            if large.is_dir():
                made.folder.joinpath("lfs").mkdir()
                made.folder.joinpath("lfs/objects").symlink_to(large)
            if lent.shallow.exists():
                made.folder.joinpath("shallow").write_bytes(lent.shallow.read_bytes())
            made.run("update-ref", "refs/heads/source", lent.commit)
        yield made


@dataclass(frozen=True)
class _Lent:
    objects: str
    shallow: Path
    form: str
    commit: str


def _objects_of(source: Path) -> _Lent:
    """Where a repository has its objects. Its owner may be another user whom only the user's own settings name as safe."""
    question = ["rev-parse", "--path-format=absolute", "--git-path", "objects", "--git-path", "shallow"]
    command = ["git", "-C", str(source), *question, "--show-object-format", "--verify", "HEAD^{commit}"]
    try:
        lines = (
            _run(command, source, b"", _users_environment(), _DEADLINE_SECONDS, None)
            .decode(errors="surrogateescape")
            .splitlines()
        )
        objects, shallow, form, commit = lines
    except (ProvisionError, ValueError) as error:
        reason = error.text if isinstance(error, ProvisionError) else str(error)
        raise Refused(
            f"{source}: its current branch cannot be read: {reason}",
            hint="make a first commit there, or remove its .git: then it is a plain folder",
        ) from error
    return _Lent(objects, Path(shallow), form, commit)


def _users_environment() -> dict[str, str]:
    """The environment to read a repository of the user's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}


def _settings(api: Api, folder: Path) -> str:
    """The settings of the private repository: how git reaches GitLab, as the API's session does."""
    url, address = api.url, api.connected_address
    http = {"followRedirects": "false", "lowSpeedLimit": "1000", "lowSpeedTime": "120"}
    if bundle := _bundle(api.ca, folder):
        http["sslCAInfo"] = str(bundle)
    if address:
        http["curloptResolve"] = f"+{url.bracketed_host}:{url.port}:{address}"
        http["proxy"] = ""
    sections = {
        "core": {"hooksPath": os.devnull, "looseCompression": "0"},
        "gc": {"auto": "0"},
        **({'filter "lfs"': _LFS} if shutil.which("git-lfs") else {}),
        "http": http,
        "protocol": {"allow": "never"},
        f'protocol "{url.scheme}"': {"allow": "always"},
        f'credential "{url.origin}"': {"helper": _HELPER},
    }
    lines = []
    for name, values in sections.items():
        lines.append(f"[{name}]")
        lines += [f"\t{key} = {_quoted(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _bundle(ca: Path | None, folder: Path) -> Path | None:
    """A file with all trusted certificates, since git's setting replaces the system's; None if the system's are enough."""
    named = next(
        (
            value
            for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
            if (value := os.environ.get(name))
        ),
        "",
    )
    if ca is None:
        return Path(named) if named and Path(named).is_file() else None
    paths = [named] if named else [ssl.get_default_verify_paths().cafile or "", *_SYSTEM_BUNDLES]
    system = next((path for one in paths if one and (path := Path(one)).is_file()), None)
    bundle = folder / "trusted.pem"
    bundle.write_bytes(b"\n".join([ca.read_bytes(), system.read_bytes() if system else b""]))
    return bundle


def _run(
    command: list[str], where: Path, stdin: bytes, env: Mapping[str, str], deadline: int, api: Api | None
) -> bytes:
    """The output of git. Raises the failure that its error text means, and as `_finished` does."""
    done = _finished(command, where, stdin, env, deadline, api)
    if done.returncode:
        output = done.stderr + (done.stdout if _verb(command) == "lfs" else b"")
        raise _failure(_verb(command), output.decode(errors="replace"), api)
    return done.stdout


def _finished(
    command: list[str], where: Path, stdin: bytes, env: Mapping[str, str], deadline: int, api: Api | None
) -> subprocess.CompletedProcess[bytes]:
    """Runs git to its end. With an `api`, its token can be read from a pipe by the processes of git.

    Raises Refused without git, and ApiFailed at the deadline.
    """
    inherited: tuple[int, ...] = ()
    if api is not None:
        read, write = os.pipe()
        os.write(write, f"{api.token.reveal()}\n".encode() * _ANSWERS)
        os.close(write)
        inherited, env = (read,), {**env, "PROVISION_TOKEN": str(read)}
    try:
        # A session of its own: Ctrl-C on the terminal does not end a push half-way.
        return subprocess.run(
            command,
            cwd=where,
            input=stdin,
            env=env,
            capture_output=True,
            check=False,
            timeout=deadline,
            pass_fds=inherited,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise Refused("git is not installed on this machine", hint="install it: a project has a source") from error
    except subprocess.TimeoutExpired as error:
        raise ApiFailed(f"git {_verb(command)} did not end in {deadline} s", hint="rerun the command") from error
    finally:
        for one in inherited:
            os.close(one)


def _verb(command: list[str]) -> str:
    words = iter(command[1:])
    for word in words:
        if word in ("--git-dir", "-C", "-c"):
            next(words)
        else:
            return word
    return ""


def _failure(verb: str, text: str, api: Api | None) -> ProvisionError:
    """The error for a git that failed: GitLab's own reason, and what to do."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    remote = [line.removeprefix("remote:").strip() for line in lines if line.startswith("remote:")]
    reason = " ".join(one.removeprefix("GitLab: ") for one in remote if one.strip("=- ")) or (
        lines[-1] if lines else "no reason"
    )
    if api is None:
        return Refused(
            f"git {verb}: {'; '.join(lines[-3:]) or 'no reason'}", hint="fix the source, then rerun the command"
        )
    where = f"git {verb} at {api.url}"
    status = _UNREACHABLE.search(text)
    if status and status[1] in ("502", "503"):
        return ApiFailed(f"{where}: {status[1]}", status=int(status[1]))
    if "GitLab:" not in text and _FETCH_FIRST.search(text):
        return ChangedMeanwhile("another commit was pushed in the meantime")
    hint = next(
        (hint for part, hint in _REASONS.items() if part in text), "check GitLab's address and the token, then rerun"
    )
    return ApiFailed(f"{where}: {reason}", hint=hint, status=int(status[1]) if status else 403 if remote else 0)

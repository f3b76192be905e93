"""The contents of the gitlab-ce packages."""

import re
import shutil
import subprocess
import sys

import pytest

from provision_lab.standins.gitlab_ce.build import VERSIONS, build, minimum

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb, which Debian and Ubuntu have")


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """The built packages by version."""
    return dict(zip(VERSIONS, build(tmp_path_factory.mktemp("debs")), strict=True))


def fields(package):
    """The control fields."""
    text = subprocess.run(["dpkg-deb", "-f", package], check=True, capture_output=True, text=True).stdout
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)


@pytest.mark.parametrize("version", VERSIONS)
def test_control(packages, version):
    """Name, version and dependencies: omnibus-gitlab's config/projects/gitlab.rb, and what the stand-in is made of."""
    seen = fields(packages[version])
    assert (seen["Package"], seen["Version"]) == ("gitlab-ce", version)
    depends = {one.split()[0] for one in seen["Depends"].split(",")}
    assert {"openssh-server", "docker-registry", "python3-cryptography"} <= depends


def test_it_needs_nothing_that_a_bare_host_lacks(packages):
    """Ruby and the ACME client depend on ca-certificates, and that on openssl: the package carries them."""
    depends = {one.split()[0] for one in fields(packages[VERSIONS[-1]])["Depends"].split(",")}
    assert depends.isdisjoint({"ruby", "python3-acme", "python3-requests", "openssl", "ca-certificates", "curl", "git"})


@pytest.mark.parametrize("version", VERSIONS)
def test_contents(packages, version):
    """Programs are executable, all files belong to root, and there is no byte code."""
    listed = subprocess.run(["dpkg-deb", "-c", packages[version]], check=True, capture_output=True, text=True).stdout
    lines = {line.split()[5]: line for line in listed.splitlines()}
    assert lines["./opt/gitlab/bin/gitlab-ctl"].startswith("-rwxr-xr-x root/root")
    assert lines["./usr/bin/gitlab-ctl"].endswith("-> /opt/gitlab/bin/gitlab-ctl")
    assert all(" root/root " in line for line in lines.values())
    assert not any("__pycache__" in name for name in lines)
    assert "./etc/gitlab/gitlab.rb" not in lines


@pytest.mark.parametrize(
    ("version", "form"), [(VERSIONS[0], "# registry_nginx['"), (VERSIONS[-1], "# registry['nginx']['")]
)
def test_each_template_shows_its_version_s_form(packages, version, form, tmp_path):
    """The settings of the registry's front end have another name from 19.2 on."""
    subprocess.run(["dpkg-deb", "-x", packages[version], tmp_path], check=True)
    text = (tmp_path / "opt/gitlab/etc/gitlab.rb.template").read_text()
    assert form in text
    assert "@" not in {line[:1] for line in text.splitlines()}
    manifest = (tmp_path / "opt/gitlab/version-manifest.txt").read_text()
    assert manifest == f"gitlab-ce {version.split('-')[0]}\n"


@pytest.mark.parametrize("module", ["ctl", "api.server"])
def test_programs_can_be_imported_from_the_package(packages, tmp_path, module):
    """The package's modules have another name than in the checkout, and do not need it."""
    subprocess.run(["dpkg-deb", "--extract", str(packages[VERSIONS[-1]]), str(tmp_path)], check=True)
    library = tmp_path / "opt/gitlab/embedded/lib/standin"
    script = f"import sys; sys.path.insert(0, {str(library)!r}); import gitlab_standin.{module}"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("version", "least"),
    [("19.3.0", "19.2"), ("19.2.4", "18.11"), ("19.0.0", "18.11"), ("18.11.5", "18.8"), ("18.0.0", "17.11")],
)
def test_the_last_stop_before_a_version(version, least):
    """MIN_VERSION of omnibus-gitlab's preinst.erb is 19.2 for 19.3; docs.gitlab.com/update/upgrade_paths."""
    assert minimum(version) == least


@pytest.fixture
def upgrade(packages, tmp_path):
    """Runs a package's preinst as dpkg does, over an installed version, in a folder that is `/` to it."""

    def run(version, installed, *files, action="upgrade", config="exit 0"):
        subprocess.run(["dpkg-deb", "--control", packages[version], tmp_path / "DEBIAN"], check=True)
        script = (tmp_path / "DEBIAN/preinst").read_text()
        script = re.sub(r"(?<!\w)/(?=(?:opt|etc|var)/)", f"{tmp_path}/", script)
        for name in files:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        bins = tmp_path / "opt/gitlab/bin"
        bins.mkdir(parents=True)
        if installed:
            text = f'{{\n  "build_version": "{installed}"\n}}\n'
            (tmp_path / "opt/gitlab/version-manifest.json").write_text(text)
        (bins / "gitlab-ctl").write_text(f'#!/bin/sh\necho "$@"\n{config}\n')
        (bins / "gitlab-ctl").chmod(0o755)
        (tmp_path / "opt/gitlab/service").mkdir()
        (tmp_path / "opt/gitlab/service/puma").symlink_to(tmp_path)
        done = subprocess.run(["sh", "-c", script, "preinst", action], capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()

    return run


def test_preinst_of_a_new_installation(upgrade):
    """Nothing is checked: preinst.erb, `case "$1"`."""
    assert upgrade("19.3.0-ce.0", None, action="install") == (0, [])


@pytest.mark.parametrize(
    ("version", "installed", "page"),
    [
        ("19.3.0-ce.0", "18.11.5", "#upgrading-to-a-new-major-version"),
        ("18.11.5-ce.0", "18.0.0", "index.html#upgrade-paths"),
    ],
)
def test_preinst_refuses_to_skip_a_stop(upgrade, version, installed, page):
    """In the words of upgrade_check() in preinst.erb, on standard output."""
    code, printed = upgrade(version, installed)
    new, old = (".".join(one.split(".")[:2]) for one in (version, installed))
    assert code == 1
    assert printed == [
        f"gitlab preinstall: It seems you are upgrading from {old} to {new}.",
        f"gitlab preinstall: It is required to upgrade to the latest {minimum(version)}.x version first before proceeding.",
        f"gitlab preinstall: Please follow the upgrade documentation at https://docs.gitlab.com/ee/update/{page}",
    ]


def test_preinst_checks_the_configuration_and_backs_up(upgrade, tmp_path):
    """check-config of the old package, for the new minor version; then main() in preinst.erb."""
    code, printed = upgrade("19.3.0-ce.0", "19.2.4", "var/opt/gitlab/standin/db.json")
    assert (code, printed[0]) == (0, "check-config --version=19.3")
    assert "gitlab preinstall: Automatically backing up only the GitLab SQL database" in printed[1]
    assert len(list((tmp_path / "var/opt/gitlab/backups").iterdir())) == 1


def test_preinst_does_not_refuse_an_older_package(upgrade):
    """A downgrade is apt's matter; preinst.erb compares with the least version only."""
    assert upgrade("19.2.4-ce.0", "19.3.0", "var/opt/gitlab/standin/db.json")[0] == 0


def test_preinst_refuses_removed_settings(upgrade):
    """check-config fails, unless skip-fail-config-check exists: config_check() in preinst.erb."""
    assert upgrade("19.3.0-ce.0", "19.2.4", config="exit 1") == (1, ["check-config --version=19.3"])


def test_preinst_and_a_backup_that_fails(upgrade):
    """The file that skips it is named: backup_failed() in preinst.erb."""
    code, printed = upgrade("19.3.0-ce.0", "19.2.4", "etc/gitlab-standin/fail-backup")
    assert code == 1
    assert printed[-2].endswith("sudo touch " + next(line for line in printed if "touch" in line).split()[-1])
    assert "Database backup failed!" in printed[-4]


@pytest.mark.parametrize("name", ["skip-auto-backup", "skip-auto-reconfigure"])
def test_preinst_without_a_backup(upgrade, name):
    """An administrator's files: main() in preinst.erb."""
    assert upgrade("19.3.0-ce.0", "19.2.4", f"etc/gitlab/{name}") == (0, ["check-config --version=19.3"])

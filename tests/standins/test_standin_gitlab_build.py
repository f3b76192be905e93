"""The contents of the gitlab-ce packages."""

import shutil
import subprocess
import sys

import pytest

from provision_lab.standins.gitlab_ce.build import VERSIONS, build

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
    """Name, version and dependencies."""
    seen = fields(packages[version])
    assert (seen["Package"], seen["Version"]) == ("gitlab-ce", version)
    assert {"ruby", "docker-registry", "python3-cryptography"} <= {one.split()[0] for one in seen["Depends"].split(",")}


@pytest.mark.parametrize("version", VERSIONS)
def test_contents(packages, version):
    """Programs are executable, all files belong to root, and there is no byte code."""
    listed = subprocess.run(["dpkg-deb", "-c", packages[version]], check=True, capture_output=True, text=True).stdout
    lines = {line.split()[5]: line for line in listed.splitlines()}
    assert lines["./opt/gitlab/bin/gitlab-ctl"].startswith("-rwxr-xr-x root/root")
    assert lines["./usr/bin/gitlab-ctl"].endswith("-> /opt/gitlab/bin/gitlab-ctl")
    assert lines["./opt/gitlab/embedded/bin/ruby"].endswith("-> /usr/bin/ruby")
    assert all(" root/root " in line for line in lines.values())
    assert not any("__pycache__" in name for name in lines)
    assert "./etc/gitlab/gitlab.rb" not in lines


@pytest.mark.parametrize(
    ("version", "form"), [(VERSIONS[0], "# registry_nginx['"), (VERSIONS[1], "# registry['nginx']['")]
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

"""gitlab.rb is evaluated by real Ruby, as the package does it."""

import shutil
from pathlib import Path

import pytest

from provision_lab.standins.gitlab_ce import build
from provision_lab.standins.gitlab_ce.host.settings import EvaluationError, evaluate

RUBY = shutil.which("ruby")
EVALUATOR = Path(build.__file__).parent / "rb/evaluate.rb"

pytestmark = pytest.mark.skipif(RUBY is None, reason="needs ruby, which `make test` installs")


@pytest.fixture
def settings_of(tmp_path):
    """Evaluates a text as gitlab.rb."""

    def settings_of(text):
        path = tmp_path / "gitlab.rb"
        path.write_text(text)
        return evaluate(path, ruby=RUBY, evaluator=EVALUATOR)

    return settings_of


def test_values_and_tables(settings_of):
    """A name that holds one value is called with it; one that holds keys is indexed."""
    text = "external_url 'https://gitlab.example.com'\ngitlab_rails['time_zone'] = \"UTC\"\n"
    assert settings_of(text) == {
        "external_url": "https://gitlab.example.com",
        "gitlab_rails": {"time_zone": "UTC"},
    }


def test_nested_keys_come_into_being(settings_of):
    """A misspelt key inside a table is no error; parents of a nested key are created."""
    assert settings_of("registry['nginx']['ssl_certificat'] = '/x'") == {
        "registry": {"nginx": {"ssl_certificat": "/x"}}
    }


def test_the_last_assignment_wins(settings_of):
    """The later of two assignments to the same key is used."""
    assert settings_of("registry['enable'] = true\nregistry['enable'] = false") == {"registry": {"enable": False}}


def test_symbols_and_strings_are_the_same_key(settings_of):
    """`:a` and `'a'` name one key, nested hashes included."""
    text = "registry['storage'] = { s3: { 'bucket' => 'old' } }\nregistry[:storage]['s3'][:bucket] = 'new'"
    assert settings_of(text) == {"registry": {"storage": {"s3": {"bucket": "new"}}}}


def test_it_is_ruby(settings_of):
    """Variables, interpolation, conditions and the environment's methods work."""
    text = 'host = "gitlab.#{%w[example com].join(\'.\')}"\nexternal_url "https://#{host}" if 1 + 1 == 2\n'
    assert settings_of(text) == {"external_url": "https://gitlab.example.com"}


def test_assigning_a_local_variable_sets_nothing(settings_of):
    """`external_url = '…'` sets a local variable of Ruby: a common mistake without an error."""
    assert settings_of("external_url = 'https://gitlab.example.com'") == {}


def test_from_file_includes_another(settings_of, tmp_path):
    """`from_file` evaluates another file in the same place."""
    other = tmp_path / "other.rb"
    other.write_text("registry['enable'] = true\n")
    assert settings_of(f"registry['log_level'] = 'warn'\nfrom_file '{other}'") == {
        "registry": {"log_level": "warn", "enable": True}
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extrenal_url 'https://x'", "Cannot set unsupported config value extrenal_url."),
        ("registri['enable'] = true", "Reading unsupported config value registri."),
    ],
)
def test_unknown_top_level_names_raise(settings_of, text, message):
    """A name that the package does not know ends the evaluation, with its line."""
    with pytest.raises(EvaluationError) as caught:
        settings_of(f"\n{text}")
    assert (str(caught.value), caught.value.line) == (message, 2)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("registry['storage'] = {", "SyntaxError"),
        ("raise ArgumentError, 'no'", "ArgumentError"),
        ("from_file '/nonexistent.rb'", "Errno::ENOENT"),
        ("exit 3", "SystemExit"),
    ],
)
def test_ruby_s_own_errors(settings_of, text, kind):
    """Whatever Ruby raises is reported by its class."""
    with pytest.raises(EvaluationError) as caught:
        settings_of(text)
    assert caught.value.kind == kind


def test_a_syntax_error_names_file_and_line(settings_of, tmp_path):
    """Ruby's message begins with the place."""
    with pytest.raises(EvaluationError, match=rf"^{tmp_path}/gitlab.rb:\d+: syntax error"):
        settings_of("registry['storage'] = {\n")


@pytest.mark.parametrize("section", ["nginx-19.2.rb", "nginx-before.rb"])
def test_the_template_evaluates(settings_of, section):
    """The template is valid, and sets only the external URL."""
    here = Path(build.__file__).parent
    template = (here / "root/opt/gitlab/etc/gitlab.rb.template").read_text()
    text = template.replace("@NGINX@\n", (here / "debian" / section).read_text())
    assert settings_of(text) == {"external_url": "GENERATED_EXTERNAL_URL"}
    assert "registry_nginx['ssl_certificate']" not in text


def test_the_template_s_settings_are_known(settings_of):
    """Every commented setting of the template can be enabled."""
    here = Path(build.__file__).parent
    template = (here / "root/opt/gitlab/etc/gitlab.rb.template").read_text()
    lines = [line.removeprefix("# ") if line.startswith("# ") else "" for line in template.splitlines()]
    settings = settings_of("require 'yaml'\n" + "\n".join(lines))
    assert settings["registry"]["storage"]["s3"]["bucket"] == "your-s3-bucket"
    assert settings["gitlab_rails"]["ldap_servers"]["main"]["port"] == 389

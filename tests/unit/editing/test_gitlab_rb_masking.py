"""Secrets in gitlab.rb are masked in its diff."""

from __future__ import annotations

import pytest

from provision.editing.ruby.edit import edit
from provision.editing.ruby.masking import diff as ruby_diff
from provision.editing.ruby.masking import secret_strings
from provision.secret import Secret

STORAGE = b"""# registry['storage'] = { 'secretkey' => 'commented-one' }
registry['storage'] = {
  's3' => {
    'bucket' => 'images',
    'accesskey' => 'AKIA-old',
    'secretkey' => "old-secret",
    'region' => 'nyc3'
  }
}
"""


def test_a_changed_secret_is_two_masked_lines() -> None:
    """Both the old and the new line are printed; secrets in the lines around them are masked too."""
    wanted = {
        ("registry", "storage"): {
            "s3": {"bucket": "images", "accesskey": "AKIA-new", "secretkey": Secret("n'ew-se\\cret"), "region": "nyc3"}
        }
    }
    done = edit(STORAGE, wanted)
    printed = ruby_diff(STORAGE, done.content, ["AKIA-new", Secret("n'ew-se\\cret")])
    assert printed.splitlines()[3:] == [
        " registry['storage'] = {",
        "   's3' => {",
        "     'bucket' => 'images',",
        "-    'accesskey' => '***',",
        "-    'secretkey' => \"***\",",
        "+    'accesskey' => '***',",
        "+    'secretkey' => \"***\",",
        "     'region' => 'nyc3'",
        "   }",
        " }",
        "(the lines differ in secrets or line endings)",
    ]
    assert "ew-se" not in repr(done)


LINES = {
    "setting": "gitlab_rails['initial_root_password'] = 'hunter22'",
    "double quotes": 'gitlab_rails["smtp_password"]="hunter22" # smtp',
    "call": "initial_shared_secret 'hunter22'",
    "comment": "# gitlab_rails['smtp_password'] = \"hunter22\"",
    "yaml in a comment": "#     password: 'hunter22'",
    "nested under a secret name": "registry['x'] = { 'credentials' => { 'user' => ['hunter22'] } }",
    "symbol key": "registry['x'] = { token: 'hunter22', bucket: 'b' }",
    "several lines": "registry['private_key'] = 'first hunter22\n second hunter22'",
    "heredoc": "registry['private_key'] = <<-'EOS'\n  hunter22\n  EOS",
    "yaml in a heredoc": "gitlab_rails['ldap'] = YAML.load <<-'EOS'\n  password: hunter22\n  EOS",
    "in a URL": "gitlab_rails['redis'] = 'redis://user:hunter22@host/'",
    "interpolated": "gitlab_rails['db_password'] = \"hunter22#{1}\"",
    "condition": "if true\n  gitlab_rails['db_password'] = 'hunter22'\nend",
    "broken Ruby": "gitlab_rails['db_password'] = 'hunter22",
    "words": "registry['tokens'] = %w[hunter22 other]",
    "number": "registry['token'] = 2222222",
}


@pytest.mark.parametrize("case", LINES)
def test_existing_secrets(case: str) -> None:
    """Values of secret-looking names are masked in every notation; the rest of the line is printed."""
    line = LINES[case]
    printed = ruby_diff(f"{line}\n".encode(), f"{line}\nnginx['x'] = 1\n".encode())
    assert "***" in printed
    assert "hunter22" not in printed
    assert "2222222" not in printed
    assert f" {line.split('=')[0].splitlines()[0][:12]}" in printed
    assert "+nginx['x'] = 1" in printed


def test_plain_lines_are_printed() -> None:
    """Paths of certificates, switches and buckets are not secret."""
    text = b"nginx['ssl_certificate_key'] = '/etc/gitlab/ssl/x.key'\nregistry['bucket'] = 'b'\ngitlab_rails['token'] = true\n"
    assert "***" not in ruby_diff(text, b"")


def test_short_secret_as_a_whole_literal() -> None:
    """A short secret is masked where it is a whole value, not inside other words."""
    printed = ruby_diff(b"", b"nginx['x'] = 'ab'\nnginx['cab'] = 1\n", [Secret("ab")])
    assert "+nginx['x'] = '***'\n+nginx['cab'] = 1" in printed


def test_secret_strings_of_a_file() -> None:
    """Strings under secret-looking names, without comments, short strings, addresses and paths."""
    assert secret_strings(STORAGE) == ["AKIA-old", "old-secret"]
    inline = (
        b"""x['storage'] = { 's3' => { accesskey: 'AKIA1234', 'secretkey' => "two words" } } # 'token' => 'and-this'"""
    )
    assert secret_strings(inline) == ["AKIA1234", "two words", "and-this"]
    innocent = b"""registry['token_realm'] = 'https://gitlab.example.com'
gitlab_rails['secret_file'] = '/etc/gitlab/secret'
gitlab_rails['password_authentication_enabled'] = 'true'
# gitlab_rails['smtp_password'] = 'not in force'
nginx['listen_addresses'] = ['0.0.0.0']
"""
    assert secret_strings(innocent) == []


LISTED_IN_THE_DOCS = [
    "registry['storage'] = {'azure' => {'accountname' => 'x', 'accountkey' => 'canary'}}",
    "gitlab_rails['sentry_dsn'] = 'https://canary@sentry.example.com/1'",
    "gitlab_rails['sentry_clientside_dsn'] = 'https://canary@sentry.example.com/1'",
    "gitlab_rails['openid_connect_signing_key'] = <<~KEY\n  -----BEGIN RSA PRIVATE KEY-----\n  canary\n  -----END RSA PRIVATE KEY-----\nKEY",
    "gitlab_rails['x'] = { 'google_json_key_string' => '{\"private_key\": \"-----BEGIN PRIVATE KEY-----\\\\ncanary\\\\n-----END PRIVATE KEY-----\"}' }",
    'gitlab_rails[\'y\'] = "{\\"private_key\\": \\"-----BEGIN PRIVATE KEY-----\\\\ncanary\\"}"',
    "redis['requirepass'] = 'canary'",
    "redis['masterauth'] = 'canary'",
    "gitlab_rails['active_record_encryption_primary_key'] = ['canary']",
    "gitlab_rails['redis_url'] = 'redis://:canary@redis.example.com:6379'",
    "gitlab_rails['smtp'] = %w[canary@example.com]\ngitlab_rails['smtp_password'] = %q(canary)",
]


@pytest.mark.parametrize("text", LISTED_IN_THE_DOCS)
@pytest.mark.parametrize("sign", ["", "# "])
def test_secrets_of_gitlabs_documentation_are_masked(text: str, sign: str) -> None:
    """Under their names, and private keys wherever they are; in comments as well."""
    lines = "".join(f"{sign}{line}\n" for line in text.splitlines()).replace("canary@example.com", "")
    assert "canary" not in ruby_diff(b"", lines.encode())

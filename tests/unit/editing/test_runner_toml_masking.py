"""Secrets in config.toml are masked in its diff."""

from __future__ import annotations

import pytest

from provision.editing.diff import masked_text
from provision.editing.toml.masking import find_secrets


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('token = "abcdef"', 'token = "***"'),
        ("token = 'abcdef' # old: token = \"zzz\"", "token = '***' # old: token = \"***\""),
        ('registration_token = "abcdef"', 'registration_token = "***"'),
        ('AccessKey = "abcdef"', 'AccessKey = "***"'),
        ('  SecretKey="abcdef"', '  SecretKey="***"'),
        ('cache.s3.SecretKey = "abcdef"', 'cache.s3.SecretKey = "***"'),
        ('"SecretKey" = "abcdef"', '"SecretKey" = "***"'),
        (
            's3 = { AccessKey = "a", BucketName = "b", SecretKey = "c" }',
            's3 = { AccessKey = "***", BucketName = "b", SecretKey = "***" }',
        ),
        ('credentials = { user = "a" }', 'credentials = { user = "***" }'),
        ('environment = ["A=secret", "B"]', 'environment = ["A=***", "***"]'),
        ("password = 12345", "password = ***"),
        ('db_password = """ab\ncd"""', 'db_password = """***\n***"""'),
        ('name = "glrt-abcdefghij"', 'name = "***"'),
        ("# token = glrt-abcdefghij", "# token = ***"),
        ('pre_build_script = "export API_TOKEN=abc; make"', 'pre_build_script = "export API_TOKEN=*** make"'),
        ('token = "abc', 'token = "***'),
        ('x = [\ntoken = "abc"', 'x = [\ntoken = "***"'),
        ("token_expires_at = 0001-01-01T00:00:00Z", "token_expires_at = 0001-01-01T00:00:00Z"),
        ('[runners.docker]\nimage = "docker:29" # = "x"', '[runners.docker]\nimage = "docker:29" # = "x"'),
        ('volumes = ["/certs/client", "/cache"]', 'volumes = ["/certs/client", "/cache"]'),
        ('AzureAccountKey = "x"', 'AzureAccountKey = "***"'),
    ],
)
def test_values_of_secret_keys(line: str, shown: str) -> None:
    """Each notation of a secret is masked inside its line; other lines stay."""
    assert masked_text(line.encode(), find_secrets) == shown

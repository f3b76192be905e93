"""The diff of config.toml shows every change and no secret."""

from __future__ import annotations

import pytest

from provision.editing.toml.masking import diff, masked


def test_swapped_token_is_seen_to_change() -> None:
    """Two tokens look alike when masked, and still make a difference."""
    assert diff('a = 1\ntoken = "one-token"\n', 'a = 1\ntoken = "other-token"\n', "config.toml") == (
        '--- config.toml\n+++ config.toml\n@@ -1,2 +1,2 @@\n a = 1\n-token = "***"\n+token = "***"\n'
    )


def test_new_file_and_missing_newline() -> None:
    """As diff(1) says them."""
    assert diff("", "a = 1", "c") == "--- c\n+++ c\n@@ -0,0 +1,1 @@\n+a = 1\n\\ No newline at end of file\n"


def test_equal_texts_have_no_diff() -> None:
    """Nothing differs: nothing is shown."""
    assert diff("a = 1\n", "a = 1\n") == ""


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('token = "abcdef"', 'token = "***"'),
        ("token = 'abcdef' # old: token = \"zzz\"", "token = '***' # old: token = ***"),
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
        ('db_password = """ab\ncd"""', 'db_password = """***\n"""'),
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
    """Each notation of a secret is blanked inside its line; innocent lines stay."""
    assert masked(line) == shown

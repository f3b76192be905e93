"""gitlab.rb files as people write them: edited, compared byte for byte, and read by real Ruby."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from provision.editing.ruby.edit import edit
from tests.support.omnibus_ruby import RUBY, check_edit

needs_ruby = pytest.mark.skipif(RUBY is None, reason="needs ruby to read the results: apt-get install ruby")


URL = {("external_url",): "https://new.example.com"}
ZONE = {("gitlab_rails", "time_zone"): "UTC"}
BUCKET = {("registry", "storage", "s3", "bucket"): "new"}
STORAGE = {("registry", "storage"): {"s3": {"bucket": "new", "region": "nyc3"}}}
CERTIFICATE = {("registry", "nginx", "ssl_certificate"): "/etc/gitlab/ssl/new.crt"}
WHOLE = """registry['storage'] = {
  's3' => {
    'bucket' => 'new',
    'region' => 'nyc3'
  }
}
"""


class Row(NamedTuple):
    """A file, what is wanted of it, and the file that is expected."""

    name: str
    before: str
    wanted: dict[tuple[str, ...], Any]
    after: str
    note: str = ""


ROWS = [
    Row("empty file", "", ZONE, "gitlab_rails['time_zone'] = 'UTC'\n"),
    Row("single quotes", "external_url 'http://old'\n", URL, "external_url 'https://new.example.com'\n"),
    Row("double quotes", 'external_url "http://old"\n', URL, "external_url 'https://new.example.com'\n"),
    Row("equal in double quotes", 'external_url "https://new.example.com"\n', URL, 'external_url "https://new.example.com"\n'),
    Row("parentheses", "external_url('http://old') # ours\n", URL, "external_url('https://new.example.com') # ours\n"),
    Row("self", "self.external_url = 'http://old'\n", URL, "self.external_url = 'https://new.example.com'\n"),
    Row("Gitlab", "Gitlab['external_url'] = 'http://old'\n", URL, "Gitlab['external_url'] = 'https://new.example.com'\n"),
    Row(
        "a computed value is replaced",
        "external_url \"http://#{ENV['HOST']}\"\nnginx['x'] = 1\n",
        URL,
        "external_url 'https://new.example.com'\nnginx['x'] = 1\n",
    ),
    Row(
        "the last assignment counts",
        "external_url 'http://a'\nnginx['x'] = 1\nexternal_url 'http://b'\n",
        URL,
        "external_url 'http://a'\nnginx['x'] = 1\nexternal_url 'https://new.example.com'\n",
        "line 1 sets external_url too; line 3 comes later and counts",
    ),
    Row(
        "an overruled equal one does not count",
        "external_url 'https://new.example.com'\nexternal_url 'http://b'\n",
        URL,
        "external_url 'https://new.example.com'\nexternal_url 'https://new.example.com'\n",
    ),
    Row(
        "a local variable is no setting",
        "external_url = 'http://a'\n",
        URL,
        "external_url = 'http://a'\nexternal_url 'https://new.example.com'\n",
        "line 1: `external_url = …` sets a local variable",
    ),
    Row("symbol key", "gitlab_rails[:time_zone] = 'CET'\n", ZONE, "gitlab_rails[:time_zone] = 'UTC'\n"),
    Row("double-quoted key", "gitlab_rails[\"time_zone\"]='CET'\n", ZONE, "gitlab_rails[\"time_zone\"]='UTC'\n"),
    Row(
        "below its commented line",
        "# gitlab_rails['time_zone'] = 'CET'\n\ngitlab_rails['x'] = 1\n",
        ZONE,
        "# gitlab_rails['time_zone'] = 'CET'\ngitlab_rails['time_zone'] = 'UTC'\n\ngitlab_rails['x'] = 1\n",
    ),
    Row(
        "below its commented block",
        "# registry['storage'] = {\n#   's3' => {\n#     'bucket' => 'x'\n#   }\n# }\n\n### Next\n",
        STORAGE,
        "# registry['storage'] = {\n#   's3' => {\n#     'bucket' => 'x'\n#   }\n# }\n" + WHOLE + "\n### Next\n",
    ),
    Row(
        "below a commented heredoc",
        "# gitlab_rails['time_zone'] = <<-'EOS'\n# CET\n# EOS\nnginx['x'] = 1\n",
        ZONE,
        "# gitlab_rails['time_zone'] = <<-'EOS'\n# CET\n# EOS\ngitlab_rails['time_zone'] = 'UTC'\nnginx['x'] = 1\n",
    ),
    Row(
        "prose about the setting is no line of it",
        "## registry_external_url is the address of the registry\nnginx['x'] = 1\n",
        {("registry_external_url",): "https://r"},
        "## registry_external_url is the address of the registry\nnginx['x'] = 1\nregistry_external_url 'https://r'\n",
    ),
    Row(
        "at the end of its section",
        "#####################\n## Registry NGINX\n#####################\n# registry['nginx']['enable'] = false\n\n"
        "#####################\n## Prometheus\n#####################\n",
        CERTIFICATE,
        "#####################\n## Registry NGINX\n#####################\n# registry['nginx']['enable'] = false\n"
        "registry['nginx']['ssl_certificate'] = '/etc/gitlab/ssl/new.crt'\n\n"
        "#####################\n## Prometheus\n#####################\n",
    ),
    Row(
        "a section by its title alone",
        "#####################\n## Registry NGINX\n#####################\n\n#####################\n## Next\n#####################\n",
        {("registry_nginx", "listen_port"): 5555},
        "#####################\n## Registry NGINX\n#####################\nregistry_nginx['listen_port'] = 5555\n\n"
        "#####################\n## Next\n#####################\n",
    ),
    Row(
        "after the last of its name",
        "gitlab_rails['a'] = 1\nnginx['b'] = 2\n",
        ZONE,
        "gitlab_rails['a'] = 1\ngitlab_rails['time_zone'] = 'UTC'\nnginx['b'] = 2\n",
    ),
    Row("whole hash, one line", "registry['storage'] = { 's3' => { 'bucket' => 'old', 'region' => 'nyc3' } }\n", STORAGE,
        "registry['storage'] = { 's3' => { 'bucket' => 'new', 'region' => 'nyc3' } }\n"),
    Row("a key joins one line", "registry['storage'] = { 's3' => { 'bucket' => 'new' } }\n", STORAGE,
        "registry['storage'] = { 's3' => { 'bucket' => 'new', 'region' => 'nyc3' } }\n"),
    Row("whole hash, equal in another order and style",
        "registry['storage'] = { s3: { :region => \"nyc3\", \"bucket\": %q(new) } }\n", STORAGE,
        "registry['storage'] = { s3: { :region => \"nyc3\", \"bucket\": %q(new) } }\n"),
    Row(
        "many lines: comments inside stay",
        "registry['storage'] = {\n  # the bucket\n  's3' => {\n    'bucket' => 'old', # 2023\n    'x' => 1,\n    'region' => 'nyc3'\n  },\n}\n",
        STORAGE,
        "registry['storage'] = {\n  # the bucket\n  's3' => {\n    'bucket' => 'new', # 2023\n    'region' => 'nyc3'\n  },\n}\n",
    ),
    Row(
        "a pair joins many lines, below a comment",
        "registry['storage'] = {\n  's3' => {\n    'bucket' => 'new' # 2023\n  }\n}\n",
        STORAGE,
        "registry['storage'] = {\n  's3' => {\n    'bucket' => 'new', # 2023\n    'region' => 'nyc3'\n  }\n}\n",
    ),
    Row(
        "the last pair goes",
        "registry['storage'] = {\n  's3' => {\n    'bucket' => 'new',\n    'region' => 'nyc3'\n  },\n  'cache' => {\n    'x' => 1\n  }\n}\n",
        STORAGE,
        WHOLE,
    ),
    Row("a whole hash where a word was", "registry['storage'] = nil # none\n", STORAGE, WHOLE[:-1] + " # none\n"),
    Row("one key of a whole hash", "registry['storage'] = {\n  's3' => { 'bucket' => 'old', 'a' => 1 } }\n", BUCKET,
        "registry['storage'] = {\n  's3' => { 'bucket' => 'new', 'a' => 1 } }\n"),
    Row("a key that the whole hash lacks", "registry['storage'] = { 'x' => 1 }\nnginx['y'] = 1\n", BUCKET,
        "registry['storage'] = { 'x' => 1 }\nregistry['storage']['s3']['bucket'] = 'new'\nnginx['y'] = 1\n"),
    Row("key by key, wanted whole",
        "registry['storage']['s3']['bucket'] = 'old' # b\nregistry['storage']['s3']['region'] = 'nyc3'\n", STORAGE,
        "registry['storage']['s3']['bucket'] = 'new' # b\nregistry['storage']['s3']['region'] = 'nyc3'\n"),
    Row("key by key, one lacking and one too many",
        "registry['storage']['s3']['bucket'] = 'new'\nregistry['storage']['cache']['x'] = 1\n", STORAGE,
        "registry['storage']['s3']['bucket'] = 'new'\nregistry['storage']['s3']['region'] = 'nyc3'\n"),
    Row("whole, then a key that overrules it",
        "registry['storage'] = { 's3' => { 'bucket' => 'a', 'region' => 'nyc3' } }\nregistry['storage']['s3']['bucket'] = 'b'\n",
        STORAGE,
        "registry['storage'] = { 's3' => { 'bucket' => 'a', 'region' => 'nyc3' } }\nregistry['storage']['s3']['bucket'] = 'new'\n"),
    Row("a key, then whole: the whole counts",
        "registry['storage']['s3']['bucket'] = 'new'\nregistry['storage'] = { 's3' => { 'bucket' => 'b' } }\n", BUCKET,
        "registry['storage']['s3']['bucket'] = 'new'\nregistry['storage'] = { 's3' => { 'bucket' => 'new' } }\n"),
    Row("merge!, overruled below", "registry.merge!({ 'storage' => { 'x' => 1 } })\nnginx['y'] = 1\n", STORAGE,
        "registry.merge!({ 'storage' => { 'x' => 1 } })\n" + WHOLE + "nginx['y'] = 1\n"),
    Row("a chain, overruled below", "nginx['a'] = gitlab_rails['time_zone'] = 'CET'\nnginx['b'] = 1\n", ZONE,
        "nginx['a'] = gitlab_rails['time_zone'] = 'CET'\ngitlab_rails['time_zone'] = 'UTC'\nnginx['b'] = 1\n"),
    Row("several at once, overruled below", "nginx['a'], gitlab_rails['time_zone'] = 1, 'CET'\n", ZONE,
        "nginx['a'], gitlab_rails['time_zone'] = 1, 'CET'\ngitlab_rails['time_zone'] = 'UTC'\n"),
    Row("or-equals becomes plain", "gitlab_rails['time_zone'] ||= 'CET' # tz\n", ZONE, "gitlab_rails['time_zone'] = 'UTC' # tz\n"),
    Row("rescue", "gitlab_rails['time_zone'] = File.read('/none') rescue 'CET'\n", ZONE, "gitlab_rails['time_zone'] = 'UTC'\n"),
    Row("several on a line", "nginx['a'] = 1; gitlab_rails['time_zone'] = 'CET'; nginx['b'] = 2\n", ZONE,
        "nginx['a'] = 1; gitlab_rails['time_zone'] = 'UTC'; nginx['b'] = 2\n"),
    Row("value on the next line", "gitlab_rails['time_zone'] =\n  'CET'\n", ZONE, "gitlab_rails['time_zone'] =\n  'UTC'\n"),
    Row("heredoc goes with its body", "gitlab_rails['time_zone'] = <<~EOS.strip\n  CET\nEOS\nnginx['a'] = 1\n", ZONE,
        "gitlab_rails['time_zone'] = 'UTC'\nnginx['a'] = 1\n"),
    Row("equal heredoc stays", "registry['x'] = <<-'EOS'\n  a: \\n\n  EOS\n", {("registry", "x"): "  a: \\n\n"},
        "registry['x'] = <<-'EOS'\n  a: \\n\n  EOS\n"),
    Row("below another's heredoc", "gitlab_rails['x'] = <<A + <<B\naa\nA\nbb\nB\nnginx['a'] = 1\n", ZONE,
        "gitlab_rails['x'] = <<A + <<B\naa\nA\nbb\nB\ngitlab_rails['time_zone'] = 'UTC'\nnginx['a'] = 1\n"),
    Row("a look-alike inside a heredoc", "nginx['x'] = <<A\n# gitlab_rails['time_zone'] = 'CET'\nA\n", ZONE,
        "nginx['x'] = <<A\n# gitlab_rails['time_zone'] = 'CET'\nA\ngitlab_rails['time_zone'] = 'UTC'\n"),
    Row("a look-alike inside a block comment", "=begin\n# gitlab_rails['time_zone'] = 'CET'\n=end\nnginx['a'] = 1\n", ZONE,
        "=begin\n# gitlab_rails['time_zone'] = 'CET'\n=end\nnginx['a'] = 1\ngitlab_rails['time_zone'] = 'UTC'\n"),
    Row("words array equals", "roles %w[a b]\n", {("roles",): ["a", "b"]}, "roles %w[a b]\n"),
    Row("words array changes", "roles %w[a b]\n", {("roles",): ["a"]}, "roles ['a']\n"),
    Row("CRLF", "# ä\r\nexternal_url 'http://old'\r\nregistry['storage'] = {}\r\n", {**URL, **STORAGE},
        "# ä\r\nexternal_url 'https://new.example.com'\r\n" + WHOLE.replace("\n", "\r\n")),
    Row("no newline at the end", "nginx['a'] = 1", ZONE, "nginx['a'] = 1\ngitlab_rails['time_zone'] = 'UTC'\n"),
    Row("byte order mark", "\ufeffexternal_url 'http://old'\n", URL, "\ufeffexternal_url 'https://new.example.com'\n"),
    Row("nothing but a byte order mark", "\ufeff", ZONE, "\ufeffgitlab_rails['time_zone'] = 'UTC'\n"),
    Row("letters before", "# Über – 日本 🦊\nnginx['ü'] = 'ß'\nexternal_url 'http://old'\n", URL,
        "# Über – 日本 🦊\nnginx['ü'] = 'ß'\nexternal_url 'https://new.example.com'\n"),
    Row("another encoding", "# encoding: iso-8859-1\nnginx['a'] = 1\n", {("nginx", "b"): "é"},
        "# encoding: iso-8859-1\nnginx['a'] = 1\nnginx['b'] = \"\\u{e9}\"\n"),
    Row("__END__", "nginx['a'] = 1\n__END__\nexternal_url 'x'\n", URL,
        "nginx['a'] = 1\nexternal_url 'https://new.example.com'\n__END__\nexternal_url 'x'\n"),
    Row("from_file after it", "gitlab_rails['time_zone'] = 'UTC'\nfrom_file '/etc/gitlab/more.rb'\n", ZONE,
        "gitlab_rails['time_zone'] = 'UTC'\nfrom_file '/etc/gitlab/more.rb'\n", "line 2 includes other Ruby"),
    Row("data, not Ruby, is loaded",
        "gitlab_rails['ldap'] = YAML.load <<-'EOS'\nmain:\n  label: L\nEOS\nx = JSON.load('{}')\nexternal_url 'http://old'\ny = YAML.load('')\n", URL,
        "gitlab_rails['ldap'] = YAML.load <<-'EOS'\nmain:\n  label: L\nEOS\nx = JSON.load('{}')\nexternal_url 'https://new.example.com'\ny = YAML.load('')\n"),
    Row("load after it", "gitlab_rails['time_zone'] = 'UTC'\nKernel.load '/etc/gitlab/more.rb' if false\n", ZONE,
        "gitlab_rails['time_zone'] = 'UTC'\nKernel.load '/etc/gitlab/more.rb' if false\n", "line 2 includes other Ruby"),
    Row("computed keys", "%w[a b].each { |key| gitlab_rails[key] = true }\n", ZONE,
        "%w[a b].each { |key| gitlab_rails[key] = true }\ngitlab_rails['time_zone'] = 'UTC'\n", "line 1 may change"),
    Row("a condition that agrees", "gitlab_rails['time_zone'] = 'CET'\nif true\n  gitlab_rails['time_zone'] = 'UTC'\nend\n", ZONE,
        "gitlab_rails['time_zone'] = 'UTC'\nif true\n  gitlab_rails['time_zone'] = 'UTC'\nend\n"),
    Row("a condition that is overruled", "gitlab_rails['time_zone'] = 'A' if false\ngitlab_rails['time_zone'] = 'CET'\n", ZONE,
        "gitlab_rails['time_zone'] = 'A' if false\ngitlab_rails['time_zone'] = 'UTC'\n"),
    Row("others' conditions are theirs", "if true\n  gitlab_rails['x'] = 1\nend\nexternal_url 'http://old'\n", URL,
        "if true\n  gitlab_rails['x'] = 1\nend\nexternal_url 'https://new.example.com'\n"),
    Row("not inside the condition its section ends with",
        "#####################\n## Registry NGINX\n#####################\nif true\n  # registry['nginx']['a'] = 1\nend\n", CERTIFICATE,
        "#####################\n## Registry NGINX\n#####################\nif true\n  # registry['nginx']['a'] = 1\nend\n"
        "registry['nginx']['ssl_certificate'] = '/etc/gitlab/ssl/new.crt'\n"),
    Row("words that differ in type", "nginx['a'] = '1'\nnginx['b'] = 1\nnginx['c'] = :x\n",
        {("nginx", "a"): 1, ("nginx", "b"): 1.0, ("nginx", "c"): "x"}, "nginx['a'] = 1\nnginx['b'] = 1.0\nnginx['c'] = 'x'\n"),
    Row("a hash for a call that ends with a parenthesis", "git_data_dirs %q(a)\n", {("git_data_dirs",): {}}, "git_data_dirs({})\n"),
    Row("a hash for a call", "git_data_dirs 1\n", {("git_data_dirs",): {"a": {}}}, "git_data_dirs({\n  'a' => {}\n})\n"),
    Row("a negative number for a call", "git_data_dirs(1)\n", {("git_data_dirs",): -1}, "git_data_dirs(-1)\n"),
]  # fmt: skip


@needs_ruby
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_row(row: Row, omnibus: Any) -> None:
    """The result is the expected file; Ruby reads the wanted values and no other change; the same edit again changes nothing."""
    done = edit(row.before.encode(), row.wanted)
    assert done.content.decode() == row.after
    assert row.note in "\n".join(done.notes)
    assert bool(done.changes) == (row.before != row.after)
    check_edit(omnibus, row.before.encode(), done.content, row.wanted)

"""gitlab.rb, edited in its syntax tree.

GitLab's configuration is Ruby. A setting is addressed by a path: `("external_url",)` is the call `external_url '…'`,
and `("registry", "nginx", "ssl_certificate")` is the assignment `registry['nginx']['ssl_certificate'] = '…'`. The last
assignment counts. Ruby itself is never run.

    values       paths and values of settings, and how they are written in Ruby
    source       the syntax tree, and the values of literals in it
    assignments  the statements that set a setting, and the value they give it
    draft        the planned edits as splices, and where a new line goes
    edit         setting and removing settings, with the read-back check
    masking      secrets in the file, and the masked diff

Source: omnibus-gitlab's files/gitlab-config-template/gitlab.rb.template and its `Gitlab` settings module.
"""

from __future__ import annotations

from provision.editing.ruby.assignments import effective
from provision.editing.ruby.edit import EditedRuby, SettingChange, edit
from provision.editing.ruby.masking import diff, secret_strings
from provision.editing.ruby.values import MISSING, Missing, NotLiteral, Path, Value, nginx_path

__all__ = [
    "MISSING",
    "EditedRuby",
    "Missing",
    "NotLiteral",
    "Path",
    "SettingChange",
    "Value",
    "diff",
    "edit",
    "effective",
    "nginx_path",
    "secret_strings",
]

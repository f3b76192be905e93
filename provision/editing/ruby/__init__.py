"""gitlab.rb, edited by its syntax tree: every byte that is not ours stays.

GitLab's configuration is Ruby. A setting is addressed by a path: `("external_url",)` is the call
`external_url '…'`, `("registry", "nginx", "ssl_certificate")` the assignment
`registry['nginx']['ssl_certificate'] = '…'`. The last assignment counts. Everything here is a pure function
of the file's bytes; Ruby itself is never run.

Source: omnibus-gitlab's files/gitlab-config-template/gitlab.rb.template and its `Gitlab` settings module.
"""

from __future__ import annotations

from provision.editing.ruby.edit import Change, Edit, edit
from provision.editing.ruby.locate import effective
from provision.editing.ruby.masking import masked_diff, secrets_in
from provision.editing.ruby.syntax import Path, nginx_path, spell
from provision.editing.ruby.values import MISSING, Missing, NotLiteral, Value, render

__all__ = [
    "MISSING",
    "Change",
    "Edit",
    "Missing",
    "NotLiteral",
    "Path",
    "Value",
    "edit",
    "effective",
    "masked_diff",
    "nginx_path",
    "render",
    "secrets_in",
    "spell",
]

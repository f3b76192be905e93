"""gitlab-runner's config.toml, edited statement by statement.

    model      input and result of an edit; matching runners with entries: by token and server, never by name
    plan       the difference, computed on plain data: the edits, and the resulting data
    layout     the text as tables and statements, with the offsets of their bytes
    edit       the edits as splices; tomlkit edits the text of one statement
    reconcile  the whole edit, with the read-back check
    masking    secrets in the file, and the masked diff

When nothing must change, neither tomlkit nor tree-sitter is imported.

Source of the format: docs.gitlab.com/runner/configuration/advanced-configuration, read at 19.3.
"""

from __future__ import annotations

from provision.editing.toml.edit import entries, reconcile
from provision.editing.toml.masking import diff
from provision.editing.toml.model import Action, Entry, Reconciled, RunnerId, WantedRunner, dotted_keys, fingerprint

__all__ = [
    "Action",
    "Entry",
    "Reconciled",
    "RunnerId",
    "WantedRunner",
    "diff",
    "dotted_keys",
    "entries",
    "fingerprint",
    "reconcile",
]

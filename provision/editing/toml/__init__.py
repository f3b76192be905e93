"""gitlab-runner's config.toml, reconciled key by key; every byte that is not ours stays.

`reconcile(text, …)` is pure: text in, text out. How it works, and why so:

    model    what is asked for and what comes back
    match    which entry is which runner: by token and server, never by name
    plan     the difference, computed on plain data: a list of edits and the data they must lead to
    layout   the text as sections and statements, each with its own bytes
    edit     the edits, carried out on the statements they concern; tomlkit writes inside a statement
    masking  a unified diff with the secrets blanked inside the lines

The whole document is never given to a writer: what no edit names is copied, byte for byte. The result
is read again with the standard library's parser and must equal the planned data, or nothing is returned.
When nothing is to be done, tomlkit is not even imported.

Source of the format: docs.gitlab.com/runner/configuration/advanced-configuration, read at 19.3.
"""

from __future__ import annotations

from provision.editing.toml.masking import diff
from provision.editing.toml.model import Action, Entry, Reconciled, RunnerId, WantedRunner, fingerprint, leaves
from provision.editing.toml.plan import entries, reconcile

__all__ = [
    "Action",
    "Entry",
    "Reconciled",
    "RunnerId",
    "WantedRunner",
    "diff",
    "entries",
    "fingerprint",
    "leaves",
    "reconcile",
]

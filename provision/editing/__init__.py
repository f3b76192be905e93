"""Changing files that others own: `/etc/gitlab/gitlab.rb`, gitlab-runner's `config.toml`, Docker's `daemon.json`.

    document.py   the kernel: a document, replacements of byte ranges, the check that reads the result back
    diff.py       the masked diff of two contents
    ruby/         gitlab.rb: settings by path, edited in the syntax tree
    toml/         config.toml: runners and top-level keys, edited statement by statement
    json.py       daemon.json: top-level keys, edited member by member

Every function here is pure: bytes or text in, bytes or text out. An edit changes only the bytes of its
settings. Before a result is returned it is parsed again and must hold the planned data; otherwise nothing
is returned and `Refused` is raised. If nothing has to change, the input is returned.
"""

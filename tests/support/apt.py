"""A real apt-get that uses one folder instead of this machine's own files."""

from __future__ import annotations

from pathlib import Path


def apt_config(folder: Path, *sources: str) -> Path:
    """Writes an apt.conf for `APT_CONFIG`, with these lines as sources. Programs' settings are read from apt.conf.d."""
    (folder / "sources.list").write_text("".join(f"{line}\n" for line in sources))
    for name in ("lists", "apt.conf.d"):
        (folder / name).mkdir(exist_ok=True)
    options = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::parts": folder / "apt.conf.d",
        "Dir::Etc::main": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Acquire::Retries": "0",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
    }
    config = folder / "apt.conf"
    config.write_text("".join(f'{key} "{value}";\n' for key, value in options.items()))
    return config

"""What is sent to `docker build`: a local folder as a tar stream, without what its .dockerignore excludes."""

from __future__ import annotations

from provision.buildcontext.context import Context

__all__ = ["Context"]

"""Lists in pages, with the headers that clients follow."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from .http import Response
from .routing import Context


def paged(context: Context, items: list[Any]) -> Response:
    """The page that was asked for."""
    page = max(context.parameters.number("page", 1) or 1, 1)
    size = min(max(context.parameters.number("per_page", 20) or 20, 1), 100)
    pages = max(-(-len(items) // size), 1)
    after = page + 1 if page < pages else None
    before = page - 1 if page > 1 else None
    headers = {
        "X-Page": str(page),
        "X-Per-Page": str(size),
        "X-Total": str(len(items)),
        "X-Total-Pages": str(pages),
        "X-Next-Page": str(after or ""),
        "X-Prev-Page": str(before or ""),
        "Link": ", ".join(_links(context, size, {"prev": before, "next": after, "first": 1, "last": pages})),
    }
    return Response(200, items[(page - 1) * size : page * size], headers)


def _links(context: Context, size: int, relations: dict[str, int | None]) -> list[str]:
    address = context.settings["external_url"] + context.request.path
    kept = {key: value for key, value in context.request.query.items() if key not in ("page", "private_token")}
    links = []
    for name, page in relations.items():
        if page is not None:
            query = urlencode({**kept, "page": page, "per_page": size}, doseq=True)
            links.append(f'<{address}?{query}>; rel="{name}"')
    return links

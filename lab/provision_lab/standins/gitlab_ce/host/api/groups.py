"""Groups: what runners need of them."""

from __future__ import annotations

from . import entities
from .access import MAINTAINER, find_group
from .http import API, Context, Response, paged, route
from .runners import groups_above, select


@route("GET", f"{API}/groups/:identity")
def show_group(context: Context, identity: str) -> Response:
    """One group."""
    return Response(200, entities.group(context, find_group(context, identity)))


@route("GET", f"{API}/groups/:identity/runners")
def group_runners(context: Context, identity: str) -> Response:
    """The runners of the group, of the groups that contain it, and of the instance."""
    above = groups_above(context.store, find_group(context, identity, MAINTAINER)["full_path"])
    found = [
        one
        for one in context.store.all("runners")
        if above & set(one.get("group_ids", ())) or one["runner_type"] == "instance_type"
    ]
    return paged(context, [entities.runner(context, one) for one in select(context, found)])

"""What gitlab-runner itself asks: no user behind it, only a runner's token."""

from __future__ import annotations

from .http import ApiError, Parameters, Response, forbidden, not_found
from .routing import API, Context, route
from .runner_records import by_token, create, editable, new_legacy_token, new_token, touch
from .store import Record


def _details(runner: Record) -> Record:
    return {"id": runner["id"], "token": runner["token"], "token_expires_at": None}


@route("POST", f"{API}/runners", scopes=())
def register(context: Context) -> Response:
    """Registers with a registration token: gone since 17.0, unless the switch allows it."""
    sent = context.parameters
    sent.require("token")
    if not context.switches.get("legacy_registration"):
        raise ApiError(410, {"message": "410 Gone - runner registration disallowed"})
    if sent.text("token") != context.switches.get("registration_token"):
        raise forbidden()
    settings = editable(sent)
    runner = create(context.store, "instance_type", settings, token=new_legacy_token(), created_by=None, project_ids=[])
    touch(context, runner, sent)
    return Response(201, _details(runner))


@route("POST", f"{API}/runners/verify", scopes=())
def verify(context: Context) -> Response:
    """Says whether a token is good; a machine with a new system id becomes known by it."""
    sent = context.parameters
    sent.require("token")
    runner = by_token(context, sent.text("token"))
    if runner["runner_type"] == "project_type" and not runner["project_ids"]:
        raise ApiError(422, {"message": "422 Runner is orphaned"})
    touch(context, runner, sent)
    return Response(200, _details(runner))


@route("DELETE", f"{API}/runners", scopes=())
def unregister(context: Context) -> Response:
    """Deletes the runner itself."""
    sent = context.parameters
    sent.require("token")
    context.store.remove("runners", by_token(context, sent.text("token")))
    return Response(204)


@route("DELETE", f"{API}/runners/managers", scopes=())
def remove_manager(context: Context) -> Response:
    """Deletes one machine of a runner; the runner stays."""
    sent = context.parameters
    sent.require("token", "system_id")
    runner = by_token(context, sent.text("token"))
    found = [one for one in runner["managers"] if one["system_id"] == sent.text("system_id")]
    if not found:
        raise not_found("Runner manager")
    runner["managers"].remove(found[0])
    context.store.changed()
    return Response(204)


@route("POST", f"{API}/runners/reset_authentication_token", scopes=())
def rotate(context: Context) -> Response:
    """A new token for the one that is shown; the old one is void at once."""
    sent = context.parameters
    sent.require("token")
    return Response(201, give_new_token(context, by_token(context, sent.text("token"))))


def give_new_token(context: Context, runner: Record) -> Record:
    """Replaces a runner's token; what the API answers."""
    runner["token"] = new_token(runner["runner_type"])
    context.store.changed()
    return {"token": runner["token"], "token_expires_at": None}


@route("POST", f"{API}/jobs/request", scopes=())
def request_job(context: Context) -> Response:
    """A runner asks for work; there is none."""
    sent: Parameters = context.parameters
    sent.require("token")
    runner = by_token(context, sent.text("token"))
    touch(context, runner, sent)
    return Response(204, headers={"X-GitLab-Last-Update": "0"})

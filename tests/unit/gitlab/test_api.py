"""`Api` against a real HTTP server on loopback."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from provision.errors import ApiFailed
from provision.gitlab.api import Api, pause
from provision.secret import Secret
from provision.url import Url

pytestmark = pytest.mark.slow

Serve = Callable[..., Any]
TOKEN = Secret("glpat-the-api-token")
NAME = "gitlab.internal.invalid"  # resolved nowhere


class TestRequests:
    """Requests and answers."""

    def test_201(self, serve: Serve, reply: Any) -> None:
        """The token is sent in a header; the answer's JSON object is returned."""
        web = serve(lambda _: reply(201, {"id": 7, "token": "glrt-x"}))
        assert Api(Url.parse(web.url), TOKEN).post("/user/runners", {"description": "x", "locked": True}) == {
            "id": 7,
            "token": "glrt-x",
        }
        (asked,) = web.asked
        assert (asked.method, asked.path) == ("POST", "/api/v4/user/runners")
        assert asked.headers["private-token"] == "glpat-the-api-token"
        assert asked.fields == {"description": "x", "locked": True}

    @pytest.mark.parametrize(
        ("status", "body", "words", "hint"),
        [
            (400, {"error": "runner_type does not have a valid value"}, "runner_type does not have a valid value", ""),
            (401, {"message": "401 Unauthorized"}, "401", "gitlab.api_token is not valid"),
            (403, {"message": "403 Forbidden"}, "403", "create_runner"),
            (404, {"message": "404 Project Not Found"}, "404 Project Not Found", "check the project or group"),
            (410, {"message": "410 Gone"}, "410", "registration tokens are off"),
            (422, {"message": "invalid token"}, "422 invalid token", ""),
            (429, {"message": "Too many requests"}, "429", "wait a minute"),
            (500, {"message": "500 Internal Server Error"}, "500", "gitlab-ctl tail"),
            (502, b"<html>a long page</html>", "502 Bad Gateway", "gitlab-ctl tail"),
        ],
    )
    def test_refusals(self, serve: Serve, reply: Any, status: int, body: Any, words: str, hint: str) -> None:
        """The URL, the path, GitLab's own reason, a hint, and the status; the request is sent once."""
        web = serve(lambda _: reply(status, body))
        with pytest.raises(ApiFailed) as caught:
            Api(Url.parse(web.url), TOKEN).post("/user/runners", {})
        assert caught.value.text.startswith(f"GitLab at {web.url} refused /user/runners: {status} ")
        assert words in caught.value.text
        assert hint in caught.value.hint
        assert caught.value.status == status
        assert caught.value.not_ready == (status == 502)
        assert "<" not in caught.value.text
        assert "glpat" not in str(caught.value)
        assert len(web.asked) == 1

    def test_a_rate_limit_is_waited_for(self, serve: Serve, reply: Any) -> None:
        """429 with Retry-After: the request is sent again after that time, with the same data."""
        answers = iter([reply(429, {"message": "slow"}, {"Retry-After": "1"}), reply(201, {"id": 1})])
        web = serve(lambda _: next(answers))
        assert Api(Url.parse(web.url), TOKEN).post("/user/runners", {"description": "x"}) == {"id": 1}
        assert [json.loads(one.body) for one in web.asked] == [{"description": "x"}] * 2

    @pytest.mark.parametrize(
        ("retry_after", "text"),
        [
            ("61", r"\(429\) and asks to wait 61 s; one request waits for at most 60 s"),
            ("7200", "asks to wait 7200 s"),
            ("soon", "429 slow"),
        ],
    )
    def test_a_longer_wait_is_not_begun(self, serve: Serve, reply: Any, retry_after: str, text: str) -> None:
        """The request fails without a wait, and the error names the time."""
        web = serve(lambda _: reply(429, {"message": "slow"}, {"Retry-After": retry_after}))
        with pytest.raises(ApiFailed, match=text) as caught:
            Api(Url.parse(web.url), TOKEN).get("/version")
        assert caught.value.status == 429
        assert len(web.asked) == 1

    def test_a_wait_is_reported(self, serve: Serve, reply: Any) -> None:
        """The waiting program gets the reason; a rate limit that lasts ends in an error after the limit."""
        web = serve(lambda _: reply(429, b"Retry later", {"Retry-After": "25", "Content-Type": "text/plain"}))
        waits: list[tuple[float, str]] = []
        token = pause.set(lambda seconds, reason: waits.append((seconds, reason)))
        with pytest.raises(ApiFailed, match="asks to wait 25 s"):
            Api(Url.parse(web.url), TOKEN).get("/version")
        pause.reset(token)
        assert waits == [(25, f"GitLab at {web.url} limits requests and asks to wait 25 s")] * 2
        assert len(web.asked) == 3

    def test_no_json(self, serve: Serve, reply: Any) -> None:
        """Another program answers."""
        web = serve(lambda _: reply(200, b"<html>hello</html>", {"Content-Type": "text/html"}))
        with pytest.raises(ApiFailed):
            Api(Url.parse(web.url), TOKEN).get("/metadata")

    def test_no_object(self, serve: Serve, reply: Any) -> None:
        """A list where an object is expected."""
        web = serve(lambda _: reply(200, [1, 2]))
        with pytest.raises(ApiFailed, match=r"returned no JSON object"):
            Api(Url.parse(web.url), TOKEN).get("/metadata")

    def test_nothing_listens(self, serve: Serve, reply: Any) -> None:
        """The innermost reason, and the machine that called."""
        web = serve(lambda _: reply(200, {}))
        web.close()
        with pytest.raises(ApiFailed, match=r"cannot be reached from this machine: .*refused") as caught:
            Api(Url.parse(web.url), TOKEN).get("/metadata")
        assert "called from this machine" in caught.value.hint
        assert caught.value.status == 0

    def test_a_server_that_does_not_answer_is_not_asked_again_at_once(
        self, serve: Serve, reply: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """For some seconds, by this client: many requests cost one wait. Another client of another server is not affected."""
        monkeypatch.setattr("provision.gitlab.api.TIMEOUT_SECONDS", 0.3)
        monkeypatch.setattr("provision.gitlab.api.OUTAGE_SECONDS", 2.0)
        hung = threading.Event()
        web = serve(lambda _: (hung.wait(5), reply(200, {}))[1])
        api = Api(Url.parse(web.url), TOKEN)
        started = time.monotonic()
        for _ in range(20):
            with pytest.raises(ApiFailed, match="cannot be reached from this machine") as caught:
                api.get("/metadata")
        hung.set()
        assert caught.value.status == 0
        assert time.monotonic() - started < 2
        assert len(web.asked) == 1
        other = serve(lambda _: reply(200, {"id": 1}))
        assert Api(Url.parse(other.url), TOKEN).get("/metadata") == {"id": 1}
        while time.monotonic() < started + 2.5:
            time.sleep(0.1)
        assert api.get("/metadata") == {}

    def test_a_name_that_is_not_resolved(self) -> None:
        """There is no other address to connect to."""
        with pytest.raises(ApiFailed, match="cannot be reached from this machine"):
            Api(Url.parse(f"http://{NAME}"), TOKEN).get("/metadata")

    def test_get_and_put(self, serve: Serve, reply: Any) -> None:
        """The other methods."""
        web = serve(lambda asked: reply(200, {"method": asked.method}))
        api = Api(Url.parse(web.url), TOKEN)
        assert api.get("/runners/7") == {"method": "GET"}
        assert api.put("/runners/7", {"paused": True}) == {"method": "PUT"}
        api.delete("/runners/7", {"filter[environment_scope]": "a b"})
        assert [(one.method, urlsplit(one.path).path) for one in web.asked] == [
            ("GET", "/api/v4/runners/7"),
            ("PUT", "/api/v4/runners/7"),
            ("DELETE", "/api/v4/runners/7"),
        ]
        assert parse_qs(urlsplit(web.asked[-1].path).query) == {"filter[environment_scope]": ["a b"]}

    @pytest.mark.parametrize("status", [200, 404, 403])
    def test_find(self, serve: Serve, reply: Any, status: int) -> None:
        """None for 404; any other refusal is raised."""
        web = serve(lambda _: reply(status, {"id": 1, "message": "no"}))
        if status == 403:
            with pytest.raises(ApiFailed, match="403"):
                Api(Url.parse(web.url), TOKEN).find("/projects/x", {"ref": "main"})
        else:
            found = Api(Url.parse(web.url), TOKEN).find("/projects/x", {"ref": "main"})
            assert (found is None) == (status == 404)
        assert web.asked[0].path == "/api/v4/projects/x?ref=main"

    def test_a_list_of_several_pages(self, serve: Serve, reply: Any) -> None:
        """All pages are read."""

        def answer(asked: Any) -> Any:
            page = int(parse_qs(urlsplit(asked.path).query).get("page", ["1"])[0])
            more = f'<http://127.0.0.1:{web.port}/api/v4/runners?page={page + 1}>; rel="next"'
            return reply(200, [{"id": page}], {"Link": more} if page < 3 else {})

        web = serve(answer)
        assert [one["id"] for one in Api(Url.parse(web.url), TOKEN).get_list("/runners", {"status": "online"})] == [
            1,
            2,
            3,
        ]
        assert "status=online" in web.asked[0].path

    def test_the_id_of_a_path(self, serve: Serve, reply: Any) -> None:
        """The path is escaped as a whole."""
        web = serve(lambda _: reply(200, {"id": 42}))
        assert Api(Url.parse(web.url), TOKEN).id_of("projects", "sammy/hello world") == 42
        assert web.asked[0].path == "/api/v4/projects/sammy%2Fhello%20world"

    def test_neither_netrc_nor_proxies_are_used(
        self, serve: Serve, reply: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They are for the internet, and could replace the token."""
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login bob password netrc-password\n")
        (tmp_path / ".netrc").chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        web = serve(lambda _: reply(200, {}))
        Api(Url.parse(web.url), TOKEN).get("/metadata")
        assert web.asked[0].headers["private-token"] == "glpat-the-api-token"
        assert "authorization" not in web.asked[0].headers

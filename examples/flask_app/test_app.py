"""Run by `python -m unittest`."""

import unittest

from app import GREETING, app


class PageTest(unittest.TestCase):
    """Requests without a server."""

    def test_the_greeting(self) -> None:
        answer = app.test_client().get("/")
        self.assertEqual((answer.status_code, answer.text), (200, GREETING))

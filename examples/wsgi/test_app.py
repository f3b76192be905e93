"""Run by `python3 -m unittest`. The validator fails if the application violates PEP 3333."""

import unittest
from typing import Any
from unittest.mock import Mock
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from app import app


class ApplicationTest(unittest.TestCase):
    """Requests without a server."""

    def test_the_path_and_the_client(self) -> None:
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        environ |= {"PATH_INFO": "/some/path", "QUERY_STRING": "", "HTTP_X_FORWARDED_FOR": "192.0.2.7"}
        started = Mock()
        answer = validator(app)(environ, started)
        self.assertEqual(b"".join(answer), b"/some/path for 192.0.2.7\n")
        answer.close()
        self.assertEqual(started.call_args.args[0], "200 OK")

"""Run by `python -m unittest`; the tests run every line of the program."""

import unittest

from app import app
from classifier import Classifier, words


class ClassifierTest(unittest.TestCase):
    """What it learns."""

    def test_words(self) -> None:
        self.assertEqual(words("A Hand-Saw, 12 in"), ["hand", "saw"])

    def test_what_it_has_seen_most(self) -> None:
        learned = Classifier([("fruit", "red apple"), ("fruit", "green apple"), ("paint", "red paint")])
        self.assertEqual(learned.category("an apple"), "fruit")
        self.assertEqual(learned.category("paint"), "paint")
        self.assertEqual(learned.category("unknown"), "fruit")

    def test_without_examples(self) -> None:
        with self.assertRaisesRegex(ValueError, "no examples"):
            Classifier([])


class PageTest(unittest.TestCase):
    """Requests without a server."""

    def test_the_form(self) -> None:
        answer = app.test_client().get("/")
        self.assertIn("Product classifier", answer.text)
        self.assertNotIn("Category:", answer.text)

    def test_the_answer_is_escaped(self) -> None:
        answer = app.test_client().get("/", query_string={"description": "<b>wool</b> jacket"})
        self.assertIn("<strong>clothes</strong>", answer.text)
        self.assertNotIn("<b>", answer.text)

    def test_json(self) -> None:
        answer = app.test_client().get("/category", query_string={"description": "a novel"})
        self.assertEqual(answer.json, {"category": "books"})

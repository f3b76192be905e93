"""The classifier's web page, and its answers for programs."""

from pathlib import Path

from flask import Flask, render_template_string, request

from classifier import Classifier

app = Flask(__name__)
_classifier = Classifier.from_file(Path(__file__).with_name("products.csv"))
_PAGE = """<!doctype html>
<title>Product classifier</title>
<h1>Product classifier</h1>
<form><input name="description" value="{{ description }}"> <button>Classify</button></form>
{% if category %}<p>Category: <strong>{{ category }}</strong></p>{% endif %}
"""


@app.get("/")
def page() -> str:
    """A form, with the answer below it."""
    description = request.args.get("description", "")
    category = _classifier.category(description) if description else ""
    return render_template_string(_PAGE, description=description, category=category)


@app.get("/category")
def category() -> dict[str, str]:
    """The category as JSON."""
    return {"category": _classifier.category(request.args["description"])}

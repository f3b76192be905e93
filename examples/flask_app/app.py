"""A web page in one file."""

from flask import Flask

app = Flask(__name__)
GREETING = "hello world!"


@app.get("/")
def hello() -> str:
    """The page."""
    return GREETING

"""Brings a GitLab CI/CD estate to the state its inventory describes."""

__version__ = "0.1.0"

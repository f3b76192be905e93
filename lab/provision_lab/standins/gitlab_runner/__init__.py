"""The `gitlab-runner` packages of the lab: a program that behaves as the real one does, as far as ops can see.

`build.py` makes the .deb files, `host/` is the program; its docstrings name what is carried over and what is not.
Source: gitlab-runner's own code, read at 19.3, and transcripts of its output.
"""

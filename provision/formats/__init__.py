"""Formats of other programs, read and written without libraries, since those are large or unmaintained.

    build_context.py  a folder as the tar stream that `docker build` reads, without what .dockerignore names
    openpgp.py        when a package repository's public key expires
    sigv4.py          AWS Signature Version 4, for requests to S3

Nothing here runs a command or imports another room. The tests compare each with its program or library.
"""

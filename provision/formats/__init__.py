"""Formats of other programs, read and written without libraries, since those are large or unmaintained.

    build_context.py  a folder as the tar stream that `docker build` reads, without what .dockerignore names
    openpgp.py        when a package repository's public key expires
    s3.py             signatures and checksums of requests to S3
    x509.py           certificates and keys

Nothing here runs a command or imports another room. The tests compare each with its program or library.
"""

"""Formats of other programs, read and written without libraries, since those are large or unmaintained.

    dockerignore.py   which files of a build context Docker leaves out
    build_context.py  a folder as the tar stream that `docker build` reads, with the same bytes on every machine
    openpgp.py        when a package repository's public key expires
    sigv4.py          AWS Signature Version 4, for requests to S3

Nothing here runs a command or imports another room. The tests compare each with its program or library.
"""

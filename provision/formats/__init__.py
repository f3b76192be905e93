"""Formats of other programs that are read or written here without their libraries, which are heavy or unmaintained.

    dockerignore.py   which files of a build context Docker leaves out
    build_context.py  a folder as the tar stream that `docker build` reads, equal byte for byte wherever it is packed
    openpgp.py        when a package repository's public key expires
    sigv4.py          AWS Signature Version 4, for requests to S3

Nothing here runs a command or imports another room. The tests compare each with its program or library.
"""

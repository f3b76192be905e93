"""Packages that stand in for those which a lab without internet cannot fetch.

Real .deb files, installed by the same code that installs the real ones.
"""

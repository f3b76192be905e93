"""Tests. Folders below `unit` mirror the rooms of `provision`; lab and fault tests boot real systemd hosts."""

"""Paths, atomic replacement, rollback and checksum."""

"""Unpickler, torch files, aliases and missing classes."""

"""Pickler: the walks, the rollback, graphs that nest deeply, saving what can be saved."""

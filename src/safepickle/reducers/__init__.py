"""Reducers: functions from an object to its reduce value, and the table that finds one by type."""

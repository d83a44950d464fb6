"""The object graph of a report as a picture."""

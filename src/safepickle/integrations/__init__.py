"""What needs a framework: one room each, imported by its name and never by another room."""

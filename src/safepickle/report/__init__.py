"""Reports on objects and files. They return data and print nothing."""

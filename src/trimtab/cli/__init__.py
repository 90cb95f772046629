"""One verb a file, in pipeline order."""

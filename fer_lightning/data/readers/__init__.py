"""One reader for each published form of a data set."""

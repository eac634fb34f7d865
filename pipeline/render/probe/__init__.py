"""Whether a pipeline takes a row, found out by calling it over networks that have no weights."""

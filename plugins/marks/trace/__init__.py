"""Any file to the row that it came from, and the marks that it carries."""

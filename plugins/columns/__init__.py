"""Fill columns of records after clips are rendered, for any plugin."""

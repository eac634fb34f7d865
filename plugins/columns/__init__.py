"""Columns of records that are filled in after clips are rendered, whatever plugin adds them."""

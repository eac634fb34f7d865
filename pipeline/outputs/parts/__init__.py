"""Rows of records, failures and refused rows, as Parquet parts; and which parts count."""

"""Clips and records of an output as a dataset that others read: WebDataset, Parquet, Hugging Face."""

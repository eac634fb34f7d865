"""Write an output's clips and records as a dataset for others: WebDataset, Parquet, Hugging Face."""

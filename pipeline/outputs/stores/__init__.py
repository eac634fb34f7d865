"""Files of an output: a local folder or a bucket, asked with patience."""

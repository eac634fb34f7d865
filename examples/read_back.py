"""Read what was exported with the libraries that it is for, and print each clip's prompt and size."""

import sys
from pathlib import Path

import webdataset
from datasets import Video, load_dataset

tars, folder = sys.argv[1:]
shards = sorted(map(str, Path(tars).glob("*.tar")))
if not shards or not Path(folder).is_dir():
    sys.exit(f"nothing to read: {tars} has no .tar files, or {folder} is not a folder; export both first")
for sample in webdataset.WebDataset(shards, shardshuffle=False).decode():
    print(f"webdataset: {sample['txt']}, {len(sample['mp4']):,} bytes")

rows = load_dataset(folder, split="train").cast_column("video", Video(decode=False))
for row in rows:
    print(f"datasets: {row['prompt']}, {Path(row['video']['path']).stat().st_size:,} bytes")

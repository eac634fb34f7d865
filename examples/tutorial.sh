#!/usr/bin/env bash
# The tutorial as one script: swept, drafted, looked at, picked, exported, read back. See docs/tutorial.md.
# SEEDS=0-1 makes it short.
set -euo pipefail
job=(examples/tutorial.yaml --seeds "${SEEDS:-0-19}" --set "output=${OUTPUT:=tutorial-output}")

framefleet plan "${job[@]}"
framefleet render "${job[@]}"

framefleet status "$OUTPUT"
framefleet sheet "$OUTPUT" -o "$OUTPUT/sheet.png" --rows prompt --columns guidance_scale
framefleet report "$OUTPUT" --price 2.5

python examples/pick.py "$OUTPUT" > "$OUTPUT/picks.jsonl"   # the gallery's stars do the same, by eye

framefleet export "$OUTPUT" "$OUTPUT-webdataset" --format webdataset --picks "$OUTPUT/picks.jsonl"
framefleet export "$OUTPUT" "$OUTPUT-hf" --format hf --picks "$OUTPUT/picks.jsonl"
python examples/read_back.py "$OUTPUT-webdataset" "$OUTPUT-hf"

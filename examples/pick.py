"""Print the picks of an output, one line of JSON each: of every prompt the two clips that flicker least."""

import json
import sys

import duckdb

OUTPUT = sys.argv[1]
BEST = """
SELECT row_id, path, prompt, seed, guidance_scale FROM read_parquet($records, union_by_name = true)
QUALIFY row_number() OVER (PARTITION BY prompt ORDER BY flicker, row_id) <= 2 ORDER BY prompt, flicker
"""
try:
    found = duckdb.execute(BEST, {"records": f"{OUTPUT}/records/*.parquet"})
except duckdb.Error as error:  # there are no records, or they have no such column
    sys.exit(f"{OUTPUT}: {str(error).splitlines()[0]}")
columns = [column[0] for column in found.description]
for row in found.fetchall():
    print(json.dumps(dict(zip(columns, row, strict=True)) | {"stars": 5}))

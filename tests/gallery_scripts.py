"""The gallery's scripts without a browser, in Node.js; tests that need it are skipped without."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

import pytest

_RUN = """
const [folder, code, ...files] = process.argv.slice(1);
const context = require("vm").createContext({ console, localStorage: { getItem: () => null },
  document: { querySelector: () => null }, window: { addEventListener() {} } });
const run = (text) => require("vm").runInContext(text, context);
const read = (file) => run(require("fs").readFileSync(`${folder}/${file}`, "utf-8"));
run(`Map.groupBy ??= (values, by) => {
  const map = new Map(); // Node.js 20 has no such function
  for (const value of values) map.set(by(value), [...(map.get(by(value)) ?? []), value]);
  return map;
}`);
files.forEach(read);
context.load = async (file) => read(file);
run(`(async () => { ${code} })()`).catch((error) => { console.error(error.message); process.exitCode = 1; });
"""


def run_scripts(folder: Path, files: Collection[str], code: str) -> str:
    """Return what the code prints after these scripts of a gallery. Raises ValueError for its error."""
    if (node := shutil.which("node")) is None:
        pytest.skip("needs Node.js: no node is on PATH")
    ran = subprocess.run(
        [node, "-e", _RUN, str(folder), code, *files], capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise ValueError(ran.stderr.strip())
    return ran.stdout


def exported_picks(output: Path, row_ids: Collection[str]) -> str:
    """Return the picks.jsonl of an output with a gallery. row_ids: of the rows with stars."""
    code = f"""
        await load("manifest.js");
        const {{ tables, block_rows: blockRows, identity }} = framefleet.latest;
        const picks = new Picks(identity);
        for (const rowId of {json.dumps(list(row_ids))}) picks.of.set(rowId, {{ stars: 5, note: "" }});
        console.log(await picksTable(new Table(tables.records, blockRows), picks));
    """
    return run_scripts(output / "gallery", ["data.js", "query.js", "picks.js"], code)

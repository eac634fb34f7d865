"""Which of our files and functions one plain job enters, in driver and worker: 4 rows, a local folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "a red ball bounces on a blue background"
# Imported by every process of Python at its start. Each writes down what it enters for the first time.
_NOTE_ENTRIES = """
    import os, sys, threading
    root, log, entered = os.environ["HOUSE_ROOT"], os.environ["HOUSE_LOG"], set()

    def enter(frame, event, _):
        code = frame.f_code
        # Without modules, comprehensions and, as bit 1 says, bodies of classes: they are run by imports.
        if event == "call" and code not in entered and code.co_name[0] != "<" and code.co_flags & 1:
            entered.add(code)
            path = os.path.realpath(code.co_filename)
            if path.startswith(root):
                with open(f"{log}/{os.getpid()}", "a") as file:
                    file.write(f"{path[len(root):]} {code.co_qualname}\\n")

    sys.settrace(enter)
    threading.settrace(enter)
"""


def plain_job(packages: tuple[str, ...]) -> Iterator[str]:
    """Yield one line: how many files, functions and folders the job enters. Starts Ray."""
    from framefleet.plugins.demo.prepare import MODEL

    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        log = Path(folder, "log")
        log.mkdir()
        Path(folder, "sitecustomize.py").write_text(dedent(_NOTE_ENTRIES))
        rows = "".join(f"{PROMPT},{seed}\n" for seed in range(4))
        Path(folder, "t.csv").write_text(f"prompt,seed\n{rows}")
        places = ["--table", f"{folder}/t.csv", "--model", str(MODEL), "--output", f"{folder}/out"]
        variables = {"PYTHONPATH": folder, "HOUSE_ROOT": f"{ROOT}/", "HOUSE_LOG": str(log)}
        command = [sys.executable, "-m", "framefleet", "render", "--quiet", "--workers", "1", *places]
        subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, check=True)
        lines = {line for file in log.iterdir() for line in file.read_text().splitlines()}
    functions = {line for line in lines if line.partition("/")[0] in packages}
    files = {line.partition(" ")[0] for line in functions}
    num_folders = len({file.rpartition("/")[0] for file in files})
    yield f"a plain job enters {len(functions):,} functions in {len(files)} files of {num_folders} folders"

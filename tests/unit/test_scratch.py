"""Folders of one process: there while it lives, cleared after it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from framefleet.pipeline.model.options.offload import own_folder

ROOT = Path(__file__).parents[2]
# As a worker ends: without a chance to clear up.
KILLED = """
import os, sys
from pathlib import Path
from framefleet.pipeline.model.options.offload import own_folder
(own_folder(Path(sys.argv[1])) / "weights").write_text("x")
os._exit(9)
"""


def test_the_folder_of_a_killed_process_is_cleared_by_the_next_and_no_other(tmp_path: Path) -> None:
    theirs = tmp_path / "framefleet-weights-of-somebody"  # with no lock beside it
    theirs.mkdir()
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT)
    (abandoned,) = (path.parent for path in tmp_path.glob("*/weights"))
    first, second = own_folder(tmp_path), own_folder(tmp_path)
    assert first != second and not abandoned.exists()
    assert {path for path in tmp_path.iterdir() if path.is_dir()} == {first, second, theirs}
    assert own_folder(tmp_path / "new").is_dir()

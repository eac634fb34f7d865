"""Folders for sockets and of one process: short and private whatever TMPDIR is, and cleared after it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from framefleet.cluster.fleet.ray_folder import MAX_FOLDER, make_socket_folder
from framefleet.cluster.fleet.warm.start import warm
from framefleet.pipeline.errors import FleetError
from framefleet.pipeline.model.options.offload import own_folder

ROOT = Path(__file__).parents[2]
RAY_BELOW = "/ray/session_2026-01-02_03-04-05_678901_1234567/sockets/plasma_store"


@pytest.fixture
def tmpdir_is(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Return what sets TMPDIR, which Python reads once."""
    return lambda folder: monkeypatch.setattr("tempfile.tempdir", str(folder))


@pytest.fixture
def deep(tmp_path: Path, tmpdir_is: Callable[[Path], None]) -> Path:
    """Return a TMPDIR as Slurm and build systems make them."""
    folder = tmp_path / "/".join(["job_1355700"] * 9)
    folder.mkdir(parents=True)
    tmpdir_is(folder)
    return folder


def test_a_socket_of_ray_fits_below_a_folder_wherever_tmpdir_is(deep: Path) -> None:
    folder = make_socket_folder()
    try:
        assert len(str(folder)) <= MAX_FOLDER
        assert folder.stat().st_mode & 0o777 == 0o700
        place = Path(f"{folder}{RAY_BELOW}")
        place.parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
    finally:
        shutil.rmtree(folder)


def test_workers_to_be_listen_wherever_tmpdir_is(deep: Path) -> None:
    with warm(threads=1) as forks:
        assert str(deep) not in forks.py_executable
    assert not list(deep.iterdir())


def test_a_folder_that_cannot_be_made_is_refused(tmpdir_is: Callable[[Path], None]) -> None:
    tmpdir_is(Path("/proc"))
    with pytest.raises(FleetError, match="/proc") as caught:
        make_socket_folder()
    assert "set TMPDIR" in caught.value.fix


_BOTH = """
from tests.commands import command
for name in ("plan", "render"):
    ended = command(name, "--table={table}", "--model=plugins/demo/shapes/model", "--output={output}")
    print(ended.exit_code, ended.stderr)
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounts need root and unshare")
def test_a_full_tmpdir_is_refused_before_ray_starts(tmp_path: Path) -> None:
    (table := tmp_path / "t.csv").write_text("prompt\na red ball\n")
    (script := tmp_path / "both.py").write_text(_BOTH.format(table=table, output=tmp_path / "out"))
    mounted = (
        f"mount -t tmpfs -o size=64k tmpfs /mnt; TMPDIR=/mnt PYTHONPATH=. exec {sys.executable} {script}"
    )
    ended = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", mounted], cwd=ROOT, capture_output=True, text=True
    )
    for said in ("3 ", "/mnt has 64 KiB free, and needs 16,384 KiB", "set TMPDIR to another folder"):
        assert ended.stdout.count(said) == 2, ended
    assert not (tmp_path / "out").exists()


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

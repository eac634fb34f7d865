"""Folders for sockets: short and private, whatever TMPDIR is, or refused with what is free and needed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from framefleet.cluster.fleet.ray_folder import MAX_FOLDER, make_socket_folder
from framefleet.cluster.fleet.warm.start import warm
from framefleet.pipeline.errors import FleetError

ROOT = Path(__file__).parents[2]
RAY_BELOW = "/ray/session_2026-01-02_03-04-05_678901_1234567/sockets/plasma_store"


@pytest.fixture
def deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a TMPDIR as Slurm and build systems make them."""
    folder = tmp_path / "/".join(["job_1355700"] * 9)
    folder.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
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


def test_a_folder_that_cannot_be_made_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc")
    with pytest.raises(FleetError, match="/proc") as caught:
        make_socket_folder()
    assert "set TMPDIR" in caught.value.fix


_FULL = """
mount -t tmpfs -o size=64k tmpfs /mnt && TMPDIR=/mnt \
exec {python} -m framefleet {command} --table {table} --model plugins/demo/shapes/model --output {output}
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounts need root and unshare")
@pytest.mark.parametrize("command", ["plan", "render"])
def test_a_full_tmpdir_is_refused_before_ray_starts(tmp_path: Path, command: str) -> None:
    table, output = tmp_path / "t.csv", tmp_path / "out"
    table.write_text("prompt\na red ball\n")
    script = _FULL.format(python=sys.executable, command=command, table=table, output=output)
    ended = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 3, ended.stderr
    assert "/mnt has 64 KiB free, and needs 16,384 KiB" in ended.stderr
    assert "set TMPDIR to another folder" in ended.stderr
    assert not output.exists()

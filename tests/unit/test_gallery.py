"""The page that shows an output: what is written, by what names, and what hostile records come to."""

from __future__ import annotations

import json
import re
import time
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import framefleet
from framefleet import OutputInUse, Store
from framefleet.cluster.driver.lock import DriverLock
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.table import open_table
from framefleet.plugins.demo.prepare import MODEL
from framefleet.plugins.pages.gallery import gallery as gallery_file
from framefleet.plugins.pages.gallery.blocks import (
    BLOCK_ROWS,
    MAX_CELL,
    TableBlocks,
    in_blocks,
    is_script,
    script,
)
from framefleet.plugins.pages.gallery.gallery import make_stills, refreshed_gallery, write_gallery
from framefleet.plugins.train.dataset.columns import plan_columns
from tests.commands import command
from tests.gallery_output import run_scripts, write_output
from tests.jobs import ROOT
from tests.outputs import committed, write_part
from tests.rows import record

HOSTILE = (
    '<img src=x onerror="alert(1)">',
    "</script><script>alert(1)</script>",
    "a 'quote' \\' and \\\\u0027",
    "\u2028\u2029\u202e\0 __proto__",
)


def read_script(content: bytes) -> tuple[str, list[str]]:
    """Return which function a script calls, and with what texts, as JavaScript reads them."""
    text = content.decode("ascii")
    called = re.fullmatch(r"framefleet\.(\w+)\((.*)\);\n", text)
    assert called is not None, text
    texts = re.findall(r"'((?:[^'\\]|\\.)*)'", called[2])
    assert ",".join(f"'{one}'" for one in texts) == called[2]
    return called[1], [json.loads(f'"{one}"') for one in (one.replace('"', '\\"') for one in texts)]


def manifest_of(store: Store) -> dict[str, Any]:
    name, (_, _, text) = read_script(store.read("gallery/manifest.js"))
    assert name == "manifest"
    return json.loads(text)


def column_of(store: Store, name: str, table: str = "records") -> list[Any]:
    """Return the cells of a column as the page reads them."""
    manifest = manifest_of(store)
    found = manifest["tables"][table]
    (column,) = (column for column in found["columns"] if column["name"] == name)
    cells: list[Any] = []
    for block in column["blocks"]:
        num_rows = min(manifest["block_rows"], found["rows"] - len(cells))
        if "all" in block:
            cells += [block["all"]] * num_rows
            continue
        called, (said, text) = read_script(store.read(f"gallery/data/{block['file']}.js"))
        assert (called, said) == ("block", block["file"])
        values, codes = json.loads(text)
        cells += values if codes is None else [values[code] for code in codes]
    return cells


@pytest.mark.parametrize("texts", [["a fox" * 20_000], ["\\'" * 20_000], ["a\\n" * 20_000], [""] * 20_000])
def test_a_large_script_is_recognized_without_taking_more_memory(texts: list[str]) -> None:
    content = script("block", *texts)
    tracemalloc.start()
    try:
        assert is_script(content) and not is_script(content[:-4])
        assert tracemalloc.get_traced_memory()[1] < 2 * len(content)
    finally:
        tracemalloc.stop()


def test_a_gallery_shows_every_record_with_its_arguments_as_columns(tmp_path: Path) -> None:
    rows = [{"prompt": f"ball {n}", "guidance_scale": 2.5 * n, "seed": n} for n in range(5)]
    store = write_output(tmp_path, rows, failures=["out of luck"])
    place = framefleet.gallery(tmp_path, x="seed", y="guidance_scale")
    assert place == f"{tmp_path}/gallery/index.html"
    assert Path(place).read_text("utf-8").startswith("<!doctype html>")
    assert column_of(store, "prompt") == [row["prompt"] for row in rows]
    assert column_of(store, "guidance_scale") == [row["guidance_scale"] for row in rows]
    assert column_of(store, "path") == [f"clips/00/{n:032x}.mp4" for n in range(5)]
    assert column_of(store, "preview_path") == [f"previews/00/{n:032x}.webp" for n in range(5)]
    assert column_of(store, "message", "failures") == ["out of luck"]
    manifest = manifest_of(store)
    assert (manifest["x"], manifest["y"]) == ("seed", "guidance_scale")
    roles = {column["name"]: column["role"] for column in manifest["tables"]["records"]["columns"]}
    assert [roles[name] for name in ("prompt", "label", "batch_size")] == ["argument", "carried", "record"]


def test_an_axis_that_is_no_column_is_refused_with_those_there_are(tmp_path: Path) -> None:
    store = write_output(tmp_path, [{"prompt": "a ball"}])
    refused = command("gallery", tmp_path, "--x", "steps")
    assert refused.exit_code == 2 and "no column 'steps'" in refused.stderr and "seed" in refused.stderr
    assert command("gallery", tmp_path).stdout == f"{tmp_path}/gallery/index.html\n"
    for axes in (b'{"x": "gone"}', b'{"x": 7}', b"no JSON"):  # that a call before has left
        store.write("gallery/axes.json", axes)
        assert command("gallery", tmp_path).exit_code == 0
        assert (manifest_of(store)["x"], manifest_of(store)["y"]) == (None, None)


def test_axes_are_kept_until_others_are_asked_for(tmp_path: Path) -> None:
    store = write_output(tmp_path, [{"prompt": "a ball", "seed": 1}])
    for x, y, kept in (("seed", "prompt", ("seed", "prompt")), ("", "", (None, None))):
        framefleet.gallery(tmp_path, x=x, y=y)
        framefleet.gallery(tmp_path)
        assert (manifest_of(store)["x"], manifest_of(store)["y"]) == kept
    framefleet.gallery(tmp_path, y="prompt")
    framefleet.gallery(tmp_path, x="batch_size")
    assert (manifest_of(store)["x"], manifest_of(store)["y"]) == ("batch_size", "prompt")


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_a_prompt_says_it_is_a_text_in_a_script(text: str, tmp_path: Path) -> None:
    store = write_output(tmp_path, [{"prompt": text, "__proto__": "x"}, {"prompt": "b"}, {"prompt": "c"}])
    framefleet.gallery(tmp_path)
    assert column_of(store, "prompt") == [text, "b", "c"]
    assert column_of(store, "__proto__") == ["x", None, None]
    for path in store.list("gallery"):
        if path.endswith("manifest.js") or "/data/" in path:
            assert b"<" not in store.read(path)


def test_a_record_names_no_file_but_a_clip_of_its_own(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write_gallery(store)
    assert manifest_of(store)["tables"]["records"]["rows"] == 0
    bad = ("../../etc/passwd", "javascript:alert(1)", "https://x.test/y.mp4", "clips/00/../x.mp4")
    shown = {"preview_path": "https://x.test/z.webp"}
    rows = [record(number, path=path, uri=path, **shown) for number, path in enumerate(bad)]
    write_part(store, "records", RECORD_FIELDS, map(values_of, rows))
    write_gallery(store)
    assert column_of(store, "path") == column_of(store, "preview_path") == [None] * len(bad)
    assert b"x.test" not in store.read("gallery/manifest.js")


def columns_of(*tables: pa.Table, role: Any = "carried") -> dict[str, Any]:
    """Return what a page knows of each column of a table that comes in blocks; and its `scripts`."""
    scripts: dict[str, bytes] = {}
    whole = TableBlocks(scripts.__setitem__)
    for table in tables:
        whole.add(table, dict.fromkeys(table.column_names, role))
    return {column["name"]: column for column in whole.described()["columns"]} | {"scripts": scripts}


def test_large_numbers_keep_their_digits_and_what_is_no_number_is_empty() -> None:
    values = {"seed": pa.array([2**63 - 1, 3]), "score": pa.array([float("nan"), 0.5])}
    columns = columns_of(pa.table(values))
    for name, shown in {"seed": [str(2**63 - 1), 3], "score": [None, 0.5]}.items():
        content = columns["scripts"][columns[name]["blocks"][0]["file"]]
        assert json.loads(read_script(content)[1][1])[0] == shown


def test_every_type_of_arrow_becomes_something_to_read() -> None:
    types = [pa.list_(pa.int64()), pa.struct([("a", pa.string())]), pa.binary(), pa.date32(), pa.time64("us")]
    types += [pa.decimal128(5, 2), pa.bool_(), pa.dictionary(pa.int8(), pa.string()), pa.large_string()]
    types += [pa.duration("s"), pa.timestamp("ns"), pa.null(), pa.float16(), pa.map_(pa.string(), pa.int64())]
    cells = pa.table([pa.nulls(2, kind) for kind in types], [str(number) for number in range(len(types))])
    full = pa.table({"l": [[1], None], "b": [b"abc", None], "d": pa.array([0, None], pa.date32())})
    full = full.append_column("t", pa.array([1, None], pa.duration("s")))
    columns = columns_of(cells, full)
    for name, shown in {"b": "3 bytes", "l": "[1]", "d": "1970-01-01"}.items():
        assert {value for value, _ in columns[name]["values"]} == {None, shown}


def test_a_cell_of_pages_is_cut_and_rows_are_counted_into_blocks() -> None:
    ends = [0, BLOCK_ROWS - 1, 2 * BLOCK_ROWS + 1, 2 * BLOCK_ROWS + 2]
    tables = [pa.table({"n": [*range(first, last)]}) for first, last in pairwise(ends)]
    blocks = [*in_blocks(iter(tables))]
    assert [len(block) for block in blocks] == [BLOCK_ROWS, BLOCK_ROWS, 2]
    assert pa.concat_tables(blocks)["n"].to_pylist() == [*range(ends[-1])]
    (content,) = columns_of(pa.table({"t": ["é" * 100_000, "b"]}))["scripts"].values()
    ((text, other), codes) = json.loads(read_script(content)[1][1])
    assert (len(text), other, codes) == (MAX_CELL + 1, "b", None)


def test_an_argument_may_be_a_number_in_some_rows_and_text_in_others() -> None:
    mixed = [pa.table({"odd": values}) for values in ([1], ["a"], [True], [2.5])]
    assert [block["odd"].to_pylist() for block in in_blocks(iter(mixed))] == [["1", "a", "true", "2.5"]]
    large = [pa.table({"odd": values}) for values in ([2**53 + 1], [0.5])]
    assert [block["odd"].to_pylist() for block in in_blocks(iter(large))] == [[str(2**53 + 1), "0.5"]]
    column = columns_of(*mixed, role="argument")["odd"]
    assert (column["kind"], column["blocks"][1]) == ("json", {"all": "a"})


def test_a_column_that_comes_later_is_empty_before() -> None:
    columns = columns_of(pa.table({"a": [1, 1]}), pa.table({"a": [1], "b": ["x"]}))
    assert columns["a"]["blocks"] == [{"all": 1}] * 2
    assert columns["b"]["blocks"] == [{"all": None}, {"all": "x"}]
    assert columns["b"]["values"] == [(None, 2), ("x", 1)]


def test_what_did_not_change_is_not_written_again_and_what_nothing_names_goes(tmp_path: Path) -> None:
    def times() -> dict[str, int]:
        return {path: (tmp_path / path).stat().st_mtime_ns for path in store.list("gallery")}

    store = write_output(tmp_path, [{"prompt": f"ball {n}"} for n in range(3)])
    write_gallery(store)
    before, version = times(), store.read("gallery/version.js")
    write_gallery(store, is_ours=True)
    assert times() == before
    write_gallery(store)
    assert {path for path, _ in times().items() ^ before.items()} == {
        "gallery/manifest.js",
        "gallery/version.js",
    }
    assert store.read("gallery/version.js") == version
    identity = manifest_of(store)["identity"]
    write_output(tmp_path, [{"prompt": "another"}], run="r2")
    store.write("job.json", b'{"job": {"sweep": {"seed": [1]}}}')
    write_gallery(store)
    assert store.read("gallery/version.js") != version
    assert manifest_of(store)["identity"] == identity  # as browsers keep stars under it
    columns = manifest_of(store)["tables"]["records"]["columns"]
    named = {block["file"] for column in columns for block in column["blocks"] if "file" in block}
    assert {Path(path).stem for path in store.list("gallery/data")} == named


def test_a_page_that_came_with_an_output_is_not_taken_for_ours(tmp_path: Path) -> None:
    store = write_output(tmp_path, [{"prompt": f"ball {n}"} for n in range(3)])
    framefleet.gallery(tmp_path)
    written = {path: store.read(path) for path in store.list("gallery") if "manifest" not in path}
    for path in written.keys() - {"gallery/version.js"}:
        store.write(path, b"steal()")
    store.write("gallery/data/notes.txt", b"of the user")
    framefleet.gallery(tmp_path)
    assert {path: store.read(path) for path in written} == written
    assert store.exists("gallery/data/notes.txt")


def test_missing_previews_are_made_when_they_are_asked_for(tmp_path: Path) -> None:
    store = write_output(
        tmp_path, [{"prompt": "a"}, {"prompt": "b"}], media=Media(format="mkv", previews=False)
    )
    write_gallery(store)
    assert column_of(store, "preview_path") == [None, None]
    store.write(f"clips/00/{1:032x}.mkv", b"damaged")
    framefleet.gallery(tmp_path, previews=True)
    assert column_of(store, "preview_path") == [f"previews/00/{0:032x}.webp", None]
    assert make_stills(store) == 0


def test_a_gallery_is_written_while_a_job_runs_and_at_its_end_and_never_fails_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = write_output(tmp_path, [{"prompt": "a"}])
    with pytest.raises(KeyboardInterrupt), refreshed_gallery(store):  # who is interrupted waits for no page
        raise KeyboardInterrupt
    assert store.list("gallery") == []
    monkeypatch.setattr(gallery_file, "_EVERY_S", 0.01)
    with refreshed_gallery(store):
        gives_up_at = time.monotonic() + 200
        while not store.exists("gallery/version.js"):
            assert time.monotonic() < gives_up_at
            time.sleep(0.01)
        assert store.exists("gallery/index.html")
        store.delete_all("gallery")
    assert store.exists("gallery/index.html")
    store.delete_all("gallery")
    store.write("records/part-r9-000001.parquet", b"no Parquet")
    with refreshed_gallery(store):
        pass
    assert "no gallery" in caplog.text and not store.exists("gallery/index.html")
    with pytest.raises(KeyboardInterrupt), refreshed_gallery(store):  # and hears of no other error
        raise KeyboardInterrupt


def test_a_driver_that_does_not_get_the_output_leaves_its_page_alone(tmp_path: Path) -> None:
    job = committed(tmp_path, 1)
    store = Store(str(tmp_path / "out"))
    with DriverLock(store), pytest.raises(OutputInUse):
        framefleet.render(job)
    assert store.list("gallery") == []


@pytest.mark.parametrize("num_checks", [0, 1])
def test_a_page_is_given_up_between_blocks_and_stays_as_it_was(num_checks: int, tmp_path: Path) -> None:
    store, checks = write_output(tmp_path, [{"prompt": "a ball"}]), iter([None] * num_checks)
    with pytest.raises(StopIteration):
        write_gallery(store, check=lambda: next(checks))
    assert not {"gallery/manifest.js", "gallery/version.js"} & {*store.list("gallery")}


def test_loras_are_a_column_of_the_gallery_whatever_a_record_has_in_their_place(tmp_path: Path) -> None:
    loras = {"ink": {"sha256": "0", "weight": 0.8}, "x": {"sha256": "0", "weight": -1}}
    hostile = [{"a": None}, {"a": {}}, ["a"], 3]
    rows = [{"prompt": "a", "lora": value} for value in (loras, {}, *hostile)]
    store = write_output(tmp_path, [*rows, {"prompt": "b"}], media=Media(embed="none"))
    framefleet.gallery(tmp_path, x="lora")
    assert column_of(store, "lora") == ["ink:0.8+x:-1", "none", None, None, None, "3", None]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "+05:30", "nowhere"])
def test_times_are_shown_in_utc_whatever_their_zone(zone: str) -> None:
    noon = pa.array([1_800_014_400], pa.int64()).cast(pa.timestamp("s", "UTC"))
    for unit in ("s", "ms", "us", "ns"):
        column = columns_of(pa.table({"at": noon.cast(pa.timestamp(unit, zone))}))["at"]
        assert re.fullmatch(r"2027-01-15T12:00:00(\.0+)?Z", column["least"])


def test_buckets_get_a_gallery_only_when_asked() -> None:
    store = write_output("memory://gallery-of-a-bucket", [{"prompt": "a"}])
    with refreshed_gallery(store):
        pass
    assert store.list("gallery") == []
    assert write_gallery(store) == "memory://gallery-of-a-bucket/gallery/index.html"
    assert column_of(store, "prompt") == ["a"]


def test_picks_are_a_table_to_render_again_and_to_train_on(tmp_path: Path) -> None:
    pick = {"row_id": "ab" * 16, "stars": 5, "note": "clean", "path": f"clips/ab/{'ab' * 16}.mp4"}
    pick |= {"prompt": "a red ball", "height": 64, "width": 64, "num_frames": 9, "guidance_scale": 4.0}
    (tmp_path / "picks.jsonl").write_text(json.dumps(pick | {"seed": 2**63 - 1, "label": "x"}) + "\n")
    table, spec = open_table(str(tmp_path / "picks.jsonl")), inspect_model(MODEL)
    plan = plan_rows(table.schema, spec, reserved=set(RECORD_FIELDS.names))
    assert sorted(plan.carried.names) == ["label", "note", "stars"]
    ((row,),) = (plan.rows(first, batch) for first, batch in table.batches())
    assert (row.request.arguments["prompt"], row.request.seed) == ("a red ball", 2**63 - 1)  # type: ignore[union-attr]
    columns = plan_columns(table, spec, "denoiser")
    assert (columns.video, columns.read["prompt"]) == ("path", "prompt")


def test_keys_of_the_wall_are_the_browsers_own_where_no_wall_is_shown() -> None:
    code = """
        let open = null;
        const ours = [], wall = { layout: null, rowsInView: 1, activeItem: null, move: () => true };
        Object.assign(document, { querySelector: (selector) => selector === "dialog[open]" ? open : null });
        globalThis.byId = (id) => (id === "wall" ? wall : { hidden: true });
        const app = { wall, table: { at: () => null }, records: null, picks: {} };
        const press = (key) => pressed(app, { key, target: Object.assign(wall, { matches: () => false }),
          preventDefault: () => ours.push(key) });
        const keys = ["PageDown", "End", "ArrowDown", "ArrowLeft", " "];
        keys.forEach(press);
        open = { id: "details", querySelector: () => null };
        ["ArrowLeft", "ArrowRight"].forEach(press);
        console.log(ours.length);
        wall.layout = {};
        open = null;
        keys.forEach(press);
        console.log(ours.length);
    """
    assert run_scripts(ROOT / "plugins/pages/gallery/page", ["keys.js"], code).split() == ["0", "5"]

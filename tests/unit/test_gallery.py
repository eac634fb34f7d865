"""The page that shows an output: what is written, by what names, and what hostile records come to."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

import framefleet
from framefleet import Store
from framefleet.cluster.driver.lock import DriverLock
from framefleet.doors import Listener
from framefleet.jobs.render import render
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.table import open_table
from framefleet.plugins.demo.prepare import MODEL
from framefleet.plugins.pages.gallery import blocks, gallery as gallery_file
from framefleet.plugins.pages.gallery.blocks import TableBlocks, in_blocks, script
from framefleet.plugins.pages.gallery.gallery import make_stills, refreshed_gallery, write_gallery
from framefleet.plugins.train.dataset.columns import plan_columns
from tests.commands import command
from tests.committed import committed
from tests.gallery_output import write_output
from tests.gallery_scripts import run_scripts
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
    found: dict[str, Any] = json.loads(text)
    return found


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
    write_output(tmp_path, [{"prompt": "a ball"}])
    with pytest.raises(JobError, match="no column 'steps'"):
        framefleet.gallery(tmp_path, x="steps")
    told = command("gallery", str(tmp_path), "--x", "steps")
    assert told.exit_code == 2 and "seed" in told.stderr
    assert command("gallery", str(tmp_path)).stdout == f"{tmp_path}/gallery/index.html\n"


def test_axes_are_kept_until_others_are_asked_for(tmp_path: Path) -> None:
    store = write_output(tmp_path, [{"prompt": "a ball", "seed": 1}])
    framefleet.gallery(tmp_path, x="seed", y="prompt")
    write_gallery(store)  # as at the end of a job
    assert (manifest_of(store)["x"], manifest_of(store)["y"]) == ("seed", "prompt")
    framefleet.gallery(tmp_path, x="batch_size")
    assert (manifest_of(store)["x"], manifest_of(store)["y"]) == ("batch_size", "prompt")
    framefleet.gallery(tmp_path, x="", y="")
    write_gallery(store)
    assert (manifest_of(store)["x"], manifest_of(store)["y"]) == (None, None)


@pytest.mark.parametrize("said", ['{"x": "gone"}', '{"x": 7}', "no JSON"])
def test_axes_that_are_kept_and_are_no_columns_are_none(said: str, tmp_path: Path) -> None:
    store = write_output(tmp_path, [{"prompt": "a ball"}])
    store.write("gallery/axes.json", said.encode())
    write_gallery(store)
    assert (manifest_of(store)["x"], manifest_of(store)["y"]) == (None, None)


def test_an_output_without_records_has_a_gallery_that_says_so(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write_gallery(store)
    assert manifest_of(store)["tables"]["records"]["rows"] == 0


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_a_prompt_says_it_is_a_text_in_a_script(text: str, tmp_path: Path) -> None:
    store = write_output(tmp_path, [{"prompt": text, "__proto__": "x"}, {"prompt": "b"}, {"prompt": "c"}])
    write_gallery(store)
    assert column_of(store, "prompt") == [text, "b", "c"]
    assert column_of(store, "__proto__") == ["x", None, None]
    for path in store.list("gallery"):
        if path.endswith("manifest.js") or "/data/" in path:
            assert b"<" not in store.read(path)


def test_a_record_names_no_file_but_a_clip_of_its_own(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    writer = PartWriter(store, "records", RECORD_FIELDS, run="r1")
    bad = ("../../etc/passwd", "javascript:alert(1)", "https://x.test/y.mp4", "clips/00/../x.mp4")
    for number, path in enumerate(bad):
        row = replace(record(number), path=path, uri=path, preview_path="https://x.test/z.webp")
        writer.add(None, values_of(row))
    writer.flush()
    write_gallery(store)
    assert column_of(store, "path") == column_of(store, "preview_path") == [None] * len(bad)
    manifest = store.read("gallery/manifest.js")
    assert b"x.test" not in manifest


def test_large_numbers_keep_their_digits_and_what_is_no_number_is_empty() -> None:
    written: dict[str, bytes] = {}
    table = TableBlocks(written.__setitem__)
    values = {"seed": pa.array([2**63 - 1, 3]), "score": pa.array([float("nan"), 0.5])}
    table.add(pa.table(values), dict.fromkeys(values, "record"))
    cells = {column["name"]: column["blocks"][0]["file"] for column in table.described()["columns"]}
    told = {name: json.loads(read_script(written[file])[1][1])[0] for name, file in cells.items()}
    assert told == {"seed": [str(2**63 - 1), 3], "score": [None, 0.5]}


def test_every_type_of_arrow_becomes_something_to_read() -> None:
    types = [pa.list_(pa.int64()), pa.struct([("a", pa.string())]), pa.binary(), pa.date32(), pa.time64("us")]
    types += [pa.decimal128(5, 2), pa.bool_(), pa.dictionary(pa.int8(), pa.string()), pa.large_string()]
    types += [pa.duration("s"), pa.timestamp("ns"), pa.null(), pa.float16(), pa.map_(pa.string(), pa.int64())]
    cells = pa.table([pa.nulls(2, kind) for kind in types], [str(number) for number in range(len(types))])
    table = TableBlocks(lambda name, content: None)
    table.add(cells, dict.fromkeys(cells.column_names, "carried"))
    full = pa.table({"l": [[1], None], "b": [b"abc", None], "d": pa.array([0, None], pa.date32())})
    full = full.append_column("t", pa.array([1, None], pa.duration("s")))
    table.add(full, dict.fromkeys(full.column_names, "carried"))
    told = {column["name"]: column.get("values") for column in table.described()["columns"]}
    assert {value for value, _ in told["b"]} == {None, "3 bytes"}
    assert {value for value, _ in told["l"]} == {None, "[1]"}
    assert {value for value, _ in told["d"]} == {None, "1970-01-01"}


def test_a_cell_of_pages_is_cut_and_rows_are_counted_into_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 3)
    tables = [pa.table({"n": [*range(first, last)]}) for first, last in ((0, 2), (2, 7), (7, 8))]
    assert [block["n"].to_pylist() for block in in_blocks(iter(tables))] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    written: dict[str, bytes] = {}
    table = TableBlocks(written.__setitem__)
    table.add(pa.table({"t": ["é" * 100_000, "b"]}), {"t": "carried"})
    ((text, other), codes) = json.loads(read_script(*written.values())[1][1])
    assert (len(text), other, codes) == (blocks.MAX_CELL + 1, "b", None)


def test_an_argument_may_be_a_number_in_some_rows_and_text_in_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 2)
    mixed = [pa.table({"odd": values}) for values in ([1], ["a"], [True], [2.5])]
    assert [block["odd"].to_pylist() for block in in_blocks(iter(mixed))] == [["1", "a"], ["true", "2.5"]]
    table = TableBlocks(lambda name, content: None)
    for block in mixed:
        table.add(block, {"odd": "argument"})
    (column,) = table.described()["columns"]
    assert (column["kind"], column["blocks"][1]) == ("json", {"all": "a"})


def test_a_column_that_comes_later_is_empty_before() -> None:
    table = TableBlocks(lambda name, content: None)
    table.add(pa.table({"a": [1, 1]}), {"a": "record"})
    table.add(pa.table({"a": [1], "b": ["x"]}), {"a": "record", "b": "carried"})
    a, b = table.described()["columns"]
    assert (a["blocks"], b["blocks"]) == ([{"all": 1}] * 2, [{"all": None}, {"all": "x"}])
    assert b["values"] == [(None, 2), ("x", 1)]


def test_what_did_not_change_is_not_written_again_and_what_nothing_names_goes(tmp_path: Path) -> None:
    store = write_output(tmp_path, [{"prompt": f"ball {n}"} for n in range(3)])
    write_gallery(store)
    before = {path: (tmp_path / path).stat().st_mtime_ns for path in store.list("gallery")}
    version = store.read("gallery/version.js")
    write_gallery(store, is_ours=True)
    again = {path: (tmp_path / path).stat().st_mtime_ns for path in store.list("gallery")}
    changed = {path for path in again if again[path] != before[path]}
    assert changed == set()
    write_gallery(store)
    compared = {path: (tmp_path / path).stat().st_mtime_ns for path in before}
    assert {path for path in compared if compared[path] != before[path]} == {
        "gallery/manifest.js",
        "gallery/version.js",
    }
    assert store.read("gallery/version.js") == version
    write_output(tmp_path, [{"prompt": "another"}], run="r2")
    write_gallery(store)
    assert store.read("gallery/version.js") != version
    columns = manifest_of(store)["tables"]["records"]["columns"]
    named = {block["file"] for column in columns for block in column["blocks"] if "file" in block}
    assert {Path(path).stem for path in store.list("gallery/data")} == named


def test_a_page_that_came_with_an_output_is_not_taken_for_ours(tmp_path: Path) -> None:
    store = write_output(tmp_path, [{"prompt": f"ball {n}"} for n in range(3)])
    write_gallery(store)
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
    monkeypatch.setattr(gallery_file, "_EVERY_S", 0.01)
    store = write_output(tmp_path, [{"prompt": "a"}])
    with refreshed_gallery(store):
        for _ in range(20_000):
            if store.exists("gallery/version.js"):
                break
            gallery_file.time.sleep(0.01)
        assert store.exists("gallery/index.html")
        store.delete_all("gallery")
    assert store.exists("gallery/index.html")
    store.delete_all("gallery")
    store.write("records/part-r9-000001.parquet", b"no Parquet")
    with refreshed_gallery(store):
        pass
    assert "no gallery" in caplog.text and not store.exists("gallery/index.html")


def test_who_is_interrupted_waits_for_no_page_and_hears_of_no_other_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = write_output(tmp_path, [{"prompt": "a"}])
    with pytest.raises(KeyboardInterrupt), refreshed_gallery(store):
        raise KeyboardInterrupt
    assert store.list("gallery") == []
    monkeypatch.setattr(store, "list", lambda path: 1 / 0)
    with pytest.raises(KeyboardInterrupt), refreshed_gallery(store):
        raise KeyboardInterrupt
    with refreshed_gallery(store):
        pass
    assert "no gallery: division by zero" in caplog.text


def test_a_driver_that_does_not_get_the_output_leaves_its_page_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(store: Store, **_: object) -> DriverLock:
        raise JobError(f"{store.url_of('')} is another driver's", "wait for it")

    job = committed(tmp_path, 1)
    monkeypatch.setattr(render, "DriverLock", refused)
    monkeypatch.setattr(Listener, "rendering", lambda *_: pytest.fail("it has no lock"))
    monkeypatch.setattr(render, "listeners", lambda: [Listener()])
    with pytest.raises(JobError, match="another driver's"):
        render.render(job)


def test_a_page_is_given_up_between_blocks_and_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gallery_file, "_EVERY_S", 0.0)
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 1)
    store = write_output(tmp_path, [{"prompt": f"ball {n}"} for n in range(3)])
    put, has_begun, may_go_on = TableBlocks.add, threading.Event(), threading.Event()

    class Over(threading.Event):
        def set(self) -> None:
            super().set()
            may_go_on.set()

    monkeypatch.setattr(gallery_file, "threading", SimpleNamespace(Event=Over, Thread=threading.Thread))

    def add(*given: Any) -> None:
        put(*given)
        has_begun.set()
        may_go_on.wait(200)

    monkeypatch.setattr(TableBlocks, "add", add)
    with pytest.raises(KeyboardInterrupt), refreshed_gallery(store):
        assert has_begun.wait(200)
        raise KeyboardInterrupt
    assert not {"gallery/manifest.js", "gallery/version.js"} & {*store.list("gallery")}
    assert caplog.text == ""


def test_loras_are_a_column_of_the_gallery_whatever_a_record_has_in_their_place(tmp_path: Path) -> None:
    loras = {"ink": {"sha256": "0", "weight": 0.8}, "x": {"sha256": "0", "weight": -1}}
    hostile = [{"a": None}, {"a": {}}, ["a"], 3]
    rows = [{"prompt": "a", "lora": value} for value in (loras, {}, *hostile)]
    store = write_output(tmp_path, [*rows, {"prompt": "b"}])
    write_gallery(store, x="lora")
    assert column_of(store, "lora") == ["ink:0.8+x:-1", "none", None, None, None, "3", None]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "+05:30", "nowhere"])
def test_times_are_shown_in_utc_whatever_their_zone(unit: str, zone: str) -> None:
    blocks = TableBlocks(lambda name, content: None)
    noon = pa.array([1_800_014_400], pa.int64()).cast(pa.timestamp("s", "UTC"))
    blocks.add(pa.table({"at": noon.cast(pa.timestamp(unit, zone))}), {"at": "carried"})
    (column,) = blocks.described()["columns"]
    assert re.fullmatch(r"2027-01-15T12:00:00(\.0+)?Z", column["least"])


def test_buckets_get_a_gallery_only_when_asked() -> None:
    store = write_output("memory://gallery-of-a-bucket", [{"prompt": "a"}])
    with refreshed_gallery(store):
        pass
    assert store.list("gallery") == []
    assert write_gallery(store) == "memory://gallery-of-a-bucket/gallery/index.html"
    assert column_of(store, "prompt") == ["a"]


PICKS: list[dict[str, Any]] = [
    {"row_id": "ab" * 16, "stars": 5, "note": "clean", "path": f"clips/ab/{'ab' * 16}.mp4", "seed": 2**63 - 1}
    | {
        "prompt": "a red ball",
        "height": 64,
        "width": 64,
        "num_frames": 9,
        "guidance_scale": 4.0,
        "label": "x",
    }
]


@pytest.fixture
def picks(tmp_path: Path) -> Path:
    path = tmp_path / "picks.jsonl"
    path.write_text("".join(json.dumps(pick) + "\n" for pick in PICKS), encoding="utf-8")
    return path


def test_picks_are_a_table_to_render_again(picks: Path) -> None:
    table, spec = open_table(str(picks)), inspect_model(MODEL)
    plan = plan_rows(table.schema, spec, reserved=set(RECORD_FIELDS.names))
    assert sorted(plan.carried.names) == ["label", "note", "stars"]
    ((row,),) = (plan.rows(first, batch) for first, batch in table.batches())
    assert (row.request.arguments["prompt"], row.request.seed) == ("a red ball", 2**63 - 1)  # type: ignore[union-attr]


def test_picks_beside_their_clips_are_a_table_to_train_on(picks: Path) -> None:
    columns = plan_columns(open_table(str(picks)), inspect_model(MODEL), "denoiser")
    assert (columns.video, columns.read["prompt"]) == ("path", "prompt")


def test_a_script_is_one_call_of_texts() -> None:
    assert script("block", "a", "it's <b>\\n") == b"framefleet.block('a','it\\u0027s \\u003cb>\\\\n');\n"


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
    assert run_scripts(gallery_file._PAGE, ["keys.js"], code).split() == ["0", "5"]

"""`framefleet forget`: no file of an output says any more what its rows said, and the others stay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import framefleet
from framefleet import JobError, Store
from framefleet.api.jobs import Job, load_job
from framefleet.cluster.driver.lock import DriverLock
from framefleet.jobs.render.claim import claim
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.pending_clips import intent_path
from framefleet.pipeline.outputs.parts.records import failure_schema, invalid_schema, record_schema, values_of
from framefleet.pipeline.outputs.parts.seals import gone_parts, new_run
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow
from framefleet.plugins.columns.column_lock import ColumnLock
from framefleet.plugins.until.candidates import Candidates
from framefleet.plugins.words.prompts import _questions, write_prompts
from tests.commands import command
from tests.jobs import job_values, write_table
from tests.outputs import committed, write_driver, write_part
from tests.rows import FAILURE, record
from tests.small_output import PROMPT, files, rendered
from tests.unit.test_until import commit, job_with

EMAIL = "alice@example.com"
TEXTS = (EMAIL, f"{PROMPT} 2", f"{PROMPT} 4", "a word about Alice", "Alice rewritten")
MAIL = pa.schema([("email", pa.string())])
SHARED = "a prompt of many"


def emails(count: int) -> list[str]:
    return [EMAIL if number in (2, 4) else f"user-{number}@example.com" for number in range(count)]


def write_columns(store: Store, folder: str, columns: Mapping[str, list[Any]]) -> None:
    table = pa.table(dict(columns))
    write_part(store, folder, table.schema, table.to_pylist(), new_run(1))


def write_parquet(store: Store, path: str, columns: Mapping[str, list[Any]]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(dict(columns)), sink)
    store.write(path, sink.getvalue().to_pybytes())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output of seven rows, the third and the fifth of one person, with all that can quote a row."""
    store = Store(str(tmp_path / "out"))
    records = rendered(store, carried={"email": emails(7), "user": [100 + number for number in range(7)]})
    row_ids, prompts = [one["row_id"] for one in records], [f"{PROMPT} {number}" for number in range(7)]
    failed = {"row_id": "f" * 32, "message": f"no {EMAIL}", "arguments": json.dumps({"prompt": TEXTS[3]})}
    writer = PartWriter(store, "failures", failure_schema(MAIL), run=new_run(1))
    writer.add(pa.RecordBatch.from_pydict({"email": [EMAIL]}, MAIL), values_of(FAILURE) | failed)
    writer.add(pa.RecordBatch.from_pydict({"email": ["x"]}, MAIL), values_of(FAILURE) | {"row_id": "e" * 32})
    writer.flush()
    writer = PartWriter(store, "invalid", invalid_schema(MAIL), run=new_run(1))
    for number, email in enumerate((EMAIL, "x")):
        cells = pa.RecordBatch.from_pydict({"email": [email]}, MAIL)
        writer.add(cells, {"row_index": number, "reason": f"{email} is wrong", "fix": ""})
    writer.flush()
    write_parquet(
        store,
        "rows/part-000000.parquet",
        {"row_index": list(range(7)), "row_id": row_ids, "email": emails(7)},
    )
    store.write("rows/_survey.json", json.dumps({"example": prompts[2]}).encode())
    clips = [one["media_sha256"] for one in records]
    for captions in (
        [f"of {EMAIL}" if email == EMAIL else "x" for email in emails(7)],
        ["newer"] * 2 + [None] * 5,
    ):
        write_columns(store, "scores", {"row_id": row_ids, "media_sha256": clips, "caption": captions})
    table = {"prompt": [*prompts, SHARED, SHARED], "email": [*emails(7), EMAIL, "x"], "seed": list(range(9))}
    for path in ("tables/" + "a" * 32, "chosen/" + "b" * 16, "chosen/0123456789abcdef/000001", "prompts/c"):
        write_parquet(store, f"{path}.parquet", table)
    write_parquet(store, "tables/added-1.parquet", {"prompt": [SHARED], "email": [EMAIL]})
    answers = {"key": ["k1", "k2"], "original_prompt": [prompts[2], "x"], "prompt": ["Alice rewritten", "y"]}
    write_columns(store, "answers", answers)
    store.write("until.json", json.dumps({"groups": [{"values": {"prompt": prompts[4]}}]}).encode())
    job = {
        "table": "/data/people.csv",
        "output": str(tmp_path / "out"),
        "sweep": {"prompt": [prompts[2], "x"]},
    }
    store.write("job.json", json.dumps({"job": job}).encode())
    for path in ("gallery/data/1.js", "report.html", "damaged/records/part-0.parquet"):
        store.write(path, EMAIL.encode())
    for path in (
        f"previews/{row_ids[2][:2]}/{row_ids[2]}.webp",
        f"checkpoints/{row_ids[4]}-3",
        "embeddings/ab/c",
    ):
        store.write(path, EMAIL.encode())
    store.write(intent_path(row_ids[2], "a" * 64), EMAIL.encode())
    picks = [
        {"row_id": row_id, "stars": 3, "note": f"ask {email}"}
        for row_id, email in zip(row_ids, emails(7), strict=True)
    ]
    store.write("stars.jsonl", "".join(f"{json.dumps(pick)}\n" for pick in picks).encode())
    write_driver(store, ended=True, error=f"TableError: row 2: {prompts[2]!r} is too long")
    return tmp_path / "out"


def words_in(folder: Path, texts: tuple[str, ...] = TEXTS) -> list[tuple[str, str]]:
    """Return each file with each of these texts in it; those of Parquet are unpacked."""
    found = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes()
        if file.suffix == ".parquet" and content != EMAIL.encode():
            rows, metadata = pq.read_table(file).to_pylist(), pq.read_metadata(file).metadata
            content = json.dumps([rows, str(metadata)], default=str, ensure_ascii=False).encode()
        forms = {text: {text, json.dumps(text)[1:-1]} for text in texts}
        found += [
            (str(file.relative_to(folder)), text)
            for text, spelled in forms.items()
            if any(form.encode() in content for form in spelled)
        ]
    return found


def others_in(folder: Path) -> dict[str, Any]:
    """Return what an output says of its other rows."""
    records = framefleet.read_records(str(folder), where=f"email != '{EMAIL}'").to_pylist()
    tables = {
        str(path.relative_to(folder)): [
            row for row in pq.read_table(path).to_pylist() if row["email"] != EMAIL
        ]
        for name in ("tables", "chosen", "prompts", "rows", "invalid")
        for path in (folder / name).rglob("*.parquet")
        if not path.name.startswith("added")
    }
    return {"records": records, "files": [(folder / row["path"]).read_bytes() for row in records], **tables}


def test_after_it_a_search_of_every_file_finds_nothing_and_all_else_is_as_it_was(out: Path) -> None:
    assert {text for _, text in words_in(out)} == {*TEXTS}
    before, num_files = others_in(out), len([*out.rglob("*")])
    dry = command("forget", out, "--where", f"email = '{EMAIL}'", "--dry-run")
    assert dry.stdout == "would be forgotten: 3 rows\n" and len([*out.rglob("*")]) == num_files
    done = command("forget", out, "--where", f"email = '{EMAIL}'", exits=0)
    assert done.stdout.startswith("forgotten: 3 rows; ")
    assert words_in(out) == []
    assert "the job's table, /data/people.csv" in done.stderr and "exports, packs" in done.stderr
    after = others_in(out)
    assert {name: after[name] for name in before if not name.startswith("invalid")} == {
        name: rows for name, rows in before.items() if not name.startswith("invalid")
    }
    assert len(after["records"]) == 5 and [row["caption"] for row in after["records"]][:2] == ["newer"] * 2
    assert [row.row_id for row in framefleet.open_output(str(out)).failures()] == []  # of no row of the table
    assert len((out / "stars.jsonl").read_text().splitlines()) == 5
    assert command("verify", out, "--files").exit_code == 0 and gone_parts(Store(str(out))) == []
    assert len(json.loads((out / "forgotten.json").read_text())) == 3
    again = command("forget", out, "--where", f"email = '{EMAIL}'", "--json")
    assert json.loads(again.stdout)["num_rows"] == 0


@pytest.mark.parametrize(
    ("options", "num_rows"),
    [
        (("--where", '"user" = 102'), 1),
        (("--where", "seed = 2 OR seed = 4"), 2),
        (("--where", f"prompt LIKE '%{PROMPT} 2'"), 1),
        (("--where", "caption = 'newer'"), 2),
        (("--where", "seed > 99"), 0),
        (("--row", "{row_ids[2]}"), 1),
        (("--row", "{digits[2]}", "--where", "seed = 4"), 2),
        (("--row", "clips/xx/{row_ids[4]}.mp4"), 1),
    ],
)
def test_rows_are_named_by_any_column_of_records_or_by_row_id(
    out: Path, options: tuple[str, ...], num_rows: int
) -> None:
    rows = framefleet.read_records(str(out), columns=["row_id", "seed"]).to_pylist()
    row_ids = [row["row_id"] for row in sorted(rows, key=lambda row: row["seed"])]
    named = {"row_ids": row_ids, "digits": [row_id[:6] for row_id in row_ids]}
    done = command("forget", out, *(option.format(**named) for option in options), "--json", exits=0)
    assert json.loads(done.stdout)["num_rows"] == num_rows
    assert len(framefleet.read_records(str(out))) == 7 - num_rows


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "no rows are named"),
        (("--where", "emial = 'x'"), "there is no column 'emial'"),
        (("--where", "email ="), "is not a condition on a row"),
        (("--row", "0" * 32), "has no record of row 0000"),
        (("--row", "12"), "too short for a row_id"),
    ],
)
def test_what_names_no_row_is_refused_and_nothing_is_changed(
    out: Path, options: tuple[str, ...], said: str
) -> None:
    before = words_in(out)
    assert said in command("forget", out, *options, exits=2).stderr
    assert words_in(out) == before and not (out / "forgotten.json").exists()


@pytest.mark.parametrize("path", ["tables/added-2.parquet", "answers/part-x.parquet", "logs/part-x.parquet"])
@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_a_file_that_cannot_be_read_is_named_before_a_row_is_forgotten(
    out: Path, path: str, options: tuple[str, ...]
) -> None:
    Store(str(out)).write(path, b"?")
    before = files(out)
    assert path in command("forget", out, "--where", "seed = 2", *options, exits=2).stderr
    assert {name: text for name, text in files(out).items() if name[:7] != "drivers"} == {
        name: text for name, text in before.items() if name[:7] != "drivers"
    }


def test_a_condition_means_columns_of_records_where_a_table_has_text(out: Path) -> None:
    """A seed is text in a table that was added as CSV."""
    write_parquet(Store(str(out)), "tables/added-2.parquet", {"seed": ["7", "8"], "email": ["x", "y"]})
    done = command("forget", out, "--where", "seed = 2 or seed > 7 and email = 'y'", exits=0)
    assert done.stdout.startswith("forgotten: 1 row; ")
    assert len(pq.read_table(out / "tables/added-2.parquet")) == 2  # the job may change numbers


@pytest.mark.parametrize(
    ("named", "also"),
    [
        ("email = 'carl'", ", and row 7 of the table, which shares its clip"),
        ("email in ('carl', 'y')", ""),
        ("seed = 2", ", and 2 rows of the table that share their clips"),
    ],
)
def test_rows_that_share_a_clip_with_a_forgotten_row_are_named(out: Path, named: str, also: str) -> None:
    (row_id,) = framefleet.read_records(str(out), where="seed = 2")["row_id"].to_pylist()
    rows = {"row_index": [2, 7, 8], "row_id": [row_id] * 3, "email": ["carl", "y", "carl"]}
    write_parquet(Store(str(out)), "rows/part-000000.parquet", rows)
    dry = command("forget", out, "--where", named, "--dry-run", exits=0)
    assert dry.stdout == f"would be forgotten: 1 row{also}\n"
    assert command("forget", out, "--where", named, exits=0).stdout.startswith(f"forgotten: 1 row{also}; ")


def test_rows_of_an_earlier_run_that_was_killed_are_counted(out: Path) -> None:
    (row_id, *_) = framefleet.read_records(str(out), where="seed = 2")["row_id"].to_pylist()
    (out / "forgotten.json").write_text(json.dumps([row_id]))
    done = command("forget", out, "--where", "seed = 5", exits=0)
    assert done.stdout.startswith("forgotten: 2 rows; ")
    assert "of an earlier run that was killed before it ended: 1 row" in done.stderr


def test_texts_that_other_rows_have_too_stay_in_the_tables_of_these(out: Path) -> None:
    """A prompt of two people is in the row of one of them after the other was forgotten."""
    framefleet.forget(str(out), where=f"email = '{EMAIL}'")
    rows = pq.read_table(out / "tables" / f"{'a' * 32}.parquet").to_pylist()
    assert [row["email"] for row in rows if row["prompt"] == SHARED] == ["x"]
    assert not (out / "tables/added-1.parquet").exists()  # all of its rows are gone


def test_rows_that_were_never_rendered_leave_the_tables_too(tmp_path: Path) -> None:
    store, texts = Store(str(tmp_path)), {"prompt": ["Alice", "rain", None], "seed": [1, 2, 3]}
    store.write("job.json", b'{"job": {}}')
    write_parquet(store, "tables/added-1.parquet", texts)
    answers = {"key": ["a", "b"], "original_prompt": ["Alice", "x"], "prompt": ["A.", "y"]}
    write_columns(store, "answers", answers)
    done = command("forget", tmp_path, "--where", "prompt = 'Alice'")
    assert done.stdout.startswith("forgotten: 0 rows; 0 files deleted, 1 rewritten"), done.output
    assert pq.read_table(tmp_path / "tables/added-1.parquet")["prompt"].to_pylist() == ["rain", None]
    assert not (tmp_path / "forgotten.json").exists()


def test_rows_of_a_batch_leave_its_table_and_its_pictures(tmp_path: Path) -> None:
    job = {"table": f"{tmp_path}/tables/a.jsonl", "output": str(tmp_path)}
    store = Store(str(tmp_path))
    store.write("job.json", json.dumps({"job": job}).encode())
    rows = [{"prompt": name, "custom_id": name[0]} for name in ("Alice", "rain", "snow")]
    pictures = [f"{tmp_path}/tables/{name}.png" for name in ("of-alice", "of-both", "of-both")]
    for path in {*pictures}:
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_bytes(b"a picture")
    records = [values_of(record(number)) for number in range(3)]
    for values, row, picture in zip(records, rows, pictures, strict=True):
        values["arguments"] = json.dumps({"prompt": row["prompt"], "image": {"uri": picture, "sha256": "0"}})
    writer = PartWriter(
        store, "failures", failure_schema(pa.schema([("custom_id", pa.string())])), run=new_run(1)
    )
    for values, row in zip(records, rows, strict=True):
        failed = values_of(FAILURE) | {name: values[name] for name in ("row_id", "arguments")}
        writer.add(pa.RecordBatch.from_pylist([{"custom_id": row["custom_id"]}]), failed)
    writer.flush()
    lines = [row | {"image": picture} for row, picture in zip(rows, pictures, strict=True)]
    store.write("tables/a.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines).encode())
    done = framefleet.forget(str(tmp_path), where="custom_id = 'A'")
    left = [json.loads(line)["prompt"] for line in (tmp_path / "tables/a.jsonl").read_text().splitlines()]
    assert left == ["rain", "snow"]
    assert not Path(pictures[0]).exists() and Path(pictures[1]).exists()
    assert words_in(tmp_path, ("Alice",)) == [] and "image" not in "".join(done.left)


def test_a_value_with_the_name_of_a_column_hides_no_row(tmp_path: Path) -> None:
    """`security` has `uri` in it, which rows without a record do not have."""
    store = Store(str(tmp_path))
    rendered(store, 2, carried={"email": ["ana@security.com"] * 2})
    rows = {"row_index": [2], "row_id": ["d" * 32], "email": ["ana@security.com"]}
    write_parquet(store, "rows/part-000000.parquet", rows | {"at": pa.array([10**18], pa.timestamp("us"))})
    store.write("job.json", b'{"job": {}}')
    assert framefleet.forget(str(tmp_path), where="email = 'ana@security.com'", dry_run=True).num_rows == 3
    some = framefleet.forget(str(tmp_path), where="email = 'ana@security.com' and seed >= 0", dry_run=True)
    assert some.num_rows == 2 and "rows without a record, which have no seed yet" in some.left[0]


def test_nothing_is_forgotten_while_a_judge_answers(out: Path) -> None:
    with (
        ColumnLock(Store(str(out)), pa.schema([("caption", pa.string())])),
        pytest.raises(JobError, match="caption may be being filled by pid"),
    ):
        framefleet.forget(str(out), where=f"email = '{EMAIL}'")


class Listening(Callback):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_prompt_that_was_rewritten_is_not_rewritten_again(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.parquet", [{"prompt": "Alice"}, {"prompt": "rain"}])
    rewrite = {"url": "http://127.0.0.1:9", "model": "pen", "question": "Write: {prompt}"}  # nobody is there
    job = load_job(job_values(table, tmp_path / "out", prompts={"rewrite": rewrite}))
    with closing(resolve_job(job, Callback())) as resolved:
        claim(resolved)
        keys = [row.key for row in _questions(resolved)]
    answers = {"key": keys, "original_prompt": ["Alice", "rain"], "prompt": ["Alice in gold", "rain in gold"]}
    write_columns(Store(job.output), "answers", answers)
    commit_rows(job, write_prompts(job, Callback()).place)
    framefleet.forget(job.output, where="original_prompt = 'Alice'")
    assert words_in(tmp_path / "out", ("Alice",)) == []
    watch = Listening()
    written = write_prompts(job, watch)
    assert written.place and pq.read_table(written.place)["prompt"].to_pylist() == ["rain in gold"]
    assert [line for line in watch.said if "so not rendered: 1 row" in line]
    assert framefleet.prompts(job) == {"rain": "rain in gold"}


def commit_rows(job: Job, table: str | None) -> None:
    """Commit the rows of a table, without clips."""
    with closing(resolve_job(job, Callback(), table)) as resolved:
        carried, names = resolved.rows.carried, resolved.rows.argument_fields.names
        schema = record_schema(carried.schema(resolved.table.schema), resolved.rows.argument_fields)
        writer = PartWriter(resolved.store, "records", schema, run=new_run(1))
        for first, batch in resolved.table.batches():
            for row in resolved.rows.read(first, batch):
                assert isinstance(row, IdentifiedRow)
                arguments = row.request().arguments
                values = values_of(record(row.index)) | {name: arguments.get(name) for name in names}
                values |= {"row_id": row.row_id, "arguments": json.dumps({"prompt": arguments["prompt"]})}
                writer.add(carried.of(batch).slice(row.index - first, 1), values)
        writer.flush()


def test_until_asks_for_no_more_clips_of_a_row_that_was_forgotten(tmp_path: Path) -> None:
    job = job_with(tmp_path)
    with closing(Candidates(job, Callback())) as candidates:
        asked = candidates.ask(0)
    own, second = asked[0].row_id, next(row.row_id for row in asked[1:] if row.place == 1)
    Store(job.output).write("forgotten.json", json.dumps([own.hex()]).encode())
    with closing(Candidates(job, Callback())) as candidates:
        left = {row.row_id for row in candidates.ask(0)}
        assert [group.values["prompt"] for group in candidates.groups] == ["b", "c"]
    assert own not in left and second in left


def test_until_makes_good_for_one_of_several_clips_that_was_forgotten(tmp_path: Path) -> None:
    job, watch = job_with(tmp_path), Listening()
    with closing(Candidates(job, watch)) as candidates:
        rows = candidates.extend(0, 2)
        commit(job, [(row, 0.9) for row in rows])
    own, later = (row.row_id.hex() for row in rows)
    Store(job.output).write("forgotten.json", json.dumps([own]).encode())
    with closing(Candidates(job, watch)) as candidates:
        again = candidates.resume()
        assert [row.row_id.hex() for row in again] == [later]
        assert [group.num_needed for group in candidates.groups] == [1, 2, 2]
    Store(job.output).write("forgotten.json", json.dumps([own, later]).encode())
    with closing(Candidates(job, watch)) as candidates:
        assert [group.values["prompt"] for group in candidates.groups] == ["b", "c"]
    assert [line for line in watch.said if "so not rendered: 1 row" in line]


def test_an_output_that_a_job_writes_to_is_left_alone(out: Path) -> None:
    with DriverLock(Store(str(out))), pytest.raises(JobError, match="is being written by"):
        framefleet.forget(str(out), where=f"email = '{EMAIL}'")
    assert words_in(out)


def test_a_row_that_was_forgotten_is_not_rendered_again_while_the_table_has_it(tmp_path: Path) -> None:
    job = committed(tmp_path)
    (row_id, *_) = framefleet.read_records(str(tmp_path / "out"), columns=["row_id"])["row_id"].to_pylist()
    framefleet.forget(str(tmp_path / "out"), row_ids=[row_id])
    planned = command("plan", job, "--json")
    values = json.loads(planned.stdout)
    assert (values["num_rows"], values["counts"]["rows"], values["counts"]["pending"]) == (6, 5, 0)
    assert "forgotten (`framefleet forget`), so not rendered: 1 row; delete them" in planned.stderr

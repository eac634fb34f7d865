"""Folders of tables, images or videos, and datasets of the hub: what names hold is data, or is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfFileSystem

from framefleet import InputError, Inputs, JobError, TableError
from framefleet.pipeline.model.specs.signature import ArgumentKind
from framefleet.pipeline.rows.sweeps.factors import lines_of
from framefleet.pipeline.rows.tables.table import open_table
from tests.answering import Answering, answered_by
from tests.hub_server import HubServer, hub

ARGUMENTS: dict[str, ArgumentKind] = {"prompt": "str", "seed": "int"}


def rows(place: Path | str) -> list[dict[str, Any]]:
    table = open_table(str(place), arguments=ARGUMENTS)
    batches = [batch for _, batch in table.batches()]
    assert all(batch.schema.equals(table.schema) for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


def refusal(place: Path | str) -> TableError:
    with pytest.raises(TableError) as caught:
        rows(place)
    return caught.value


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ([1, 2], [1, 2]),
        ([1.5, 2.5], [1.5, 2.5]),
        (["01", "2"], ["01", "2"]),
        (["x/y %", "ü=1"], ["x/y %", "ü=1"]),
        ([True, False], [True, False]),
        (["a", None], ["a", None]),
        (["a", ""], ["a", ""]),
    ],
)
def test_partitions_are_columns_with_types(values: list[Any], read: list[Any], tmp_path: Path) -> None:
    frame = pandas.DataFrame({"prompt": ["a", "b"], "_style": values})
    frame.to_parquet(tmp_path / "t", partition_cols=["_style"])
    (tmp_path / "t" / "_SUCCESS").touch()
    (tmp_path / "t" / ".part.parquet.crc").touch()
    (tmp_path / "t" / "~$open_in_excel.parquet").touch()
    found = sorted(rows(tmp_path / "t"), key=lambda row: row["prompt"])
    assert [row["_style"] for row in found] == read


@pytest.mark.parametrize("folder", ["prompts", "chosen"])
def test_tables_of_several_runs_of_a_job_are_read_together(folder: str, tmp_path: Path) -> None:
    """As `verify --fleet` reads them: the job's table got a column, and lost another, between two runs."""
    tables = [{"prompt": "a", "style": "x"}, {"shot": "close", "prompt": "b"}]
    (tmp_path / folder).mkdir()
    for number, table in enumerate(tables):
        pq.write_table(pa.Table.from_pylist([table]), tmp_path / folder / f"{number:016x}.parquet")
    empty = {"prompt": None, "style": None, "shot": None}
    assert rows(f"{tmp_path}/{folder}/*.parquet") == [empty | table for table in tables]
    (tmp_path / folder / f"{0:016x}.parquet").rename(tmp_path / folder / "mine.parquet")
    assert "different columns" in refusal(f"{tmp_path}/{folder}/*.parquet").problem


def test_partitions_of_arguments_stay_text_and_may_be_nested(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"prompt": ["a", "b"], "seed": [7, 2**62], "style": ["x", "x"]})
    frame.to_parquet(tmp_path / "t", partition_cols=["style", "seed"])
    expected = [
        {"prompt": "b", "style": "x", "seed": f"{2**62}"},
        {"prompt": "a", "style": "x", "seed": "7"},
    ]
    assert rows(tmp_path / "t") == expected
    assert rows(tmp_path / "t" / "style=x") == expected
    assert rows(f"{tmp_path}/t/style=*/seed=7/*.parquet") == expected[1:]


def test_a_column_that_is_in_the_files_too_must_agree_with_the_folder(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"n={number}").mkdir()
        pq.write_table(pa.table({"prompt": ["a"], "n": [number]}), tmp_path / f"n={number}" / "p.parquet")
    assert [row["n"] for row in rows(tmp_path)] == [1, 2]
    (tmp_path / "n=2").rename(tmp_path / "n=3")
    assert "n=3/p.parquet has rows whose column 'n' is not 3" in refusal(tmp_path).problem


def test_folders_between_those_of_columns_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "text/style=oil").mkdir(parents=True)
    (tmp_path / "text/style=oil/p.csv").write_text("prompt\na\n")
    assert [row["style"] for row in rows(tmp_path / "text")] == ["oil"]
    folder = tmp_path / "lr=1" / "t"
    for place in ("style=ink/sub", "style=oil/batch/deep"):
        (folder / place).mkdir(parents=True)
        pq.write_table(pa.table({"prompt": ["a"]}), folder / place / "p.parquet")
    wanted = [{"prompt": "a", "style": "ink"}, {"prompt": "a", "style": "oil"}]
    assert rows(folder) == rows(f"{folder}/*/**/*.parquet") == wanted
    pq.write_table(pa.table({"prompt": ["a"]}), folder / "q.parquet")
    assert "q.parquet is in folders for no columns" in refusal(folder).problem


@pytest.mark.parametrize("value", ["what?", "a?b=c", "[1]*", "#1", "50% off", "a;b", "it's"])
def test_partitions_that_people_name_by_hand_keep_their_signs(value: str, tmp_path: Path) -> None:
    folder = tmp_path / "t" / f"style={value}"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"prompt": ["a"]}), folder / "p.parquet")
    wanted = [{"prompt": "a", "style": value}]
    assert rows(tmp_path / "t") == rows(folder / "p.parquet") == rows(folder) == wanted


def test_columns_that_must_not_be_null_are_columns_like_others(tmp_path: Path) -> None:
    """As writers of Java and Rust declare them; files that are added may lack such a column."""
    schema = pa.schema([pa.field("prompt", pa.string(), nullable=False), pa.field("id", pa.int64())])
    for name, one in (("oil", schema), ("ink", schema.set(0, pa.field("prompt", pa.string())))):
        (tmp_path / f"style={name}").mkdir()
        pq.write_table(pa.table({"prompt": [name], "id": [1]}, one), tmp_path / f"style={name}/p.parquet")
    assert [row["prompt"] for row in rows(tmp_path)] == ["ink", "oil"]
    assert all(field.nullable for field in open_table(str(tmp_path)).schema)


@pytest.mark.parametrize("value", [b"%ff", b"\xff", b"a%C3"])
def test_a_partition_that_is_not_utf_8_is_refused(value: bytes, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/style=" + value
    os.mkdir(folder)
    with open(folder + b"/p.parquet", "wb") as file:
        pq.write_table(pa.table({"prompt": ["a"]}), file)
    assert "is not UTF-8" in refusal(tmp_path).problem


@pytest.mark.parametrize("place", ["", "/data/*.parquet", "/n=1", "/n=1/p.parquet"])
def test_a_table_of_hudi_is_refused_by_name(place: str, tmp_path: Path) -> None:
    for folder in ("n=1", "data", ".hoodie"):
        (tmp_path / folder).mkdir()
        pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / folder / "p.parquet")
    (tmp_path / ".hoodie/hoodie.properties").write_text("{}")
    error = refusal(f"{tmp_path}{place}")
    assert "Hudi" in error.problem and "write its rows as Parquet" in error.fix


@pytest.mark.parametrize("column", ["pandas Period", "SQL interval"])
def test_values_that_only_their_own_library_reads_are_refused(column: str, tmp_path: Path) -> None:
    if column == "pandas Period":  # which Arrow gives as the number of months since 1970
        frame = pandas.DataFrame({"prompt": ["a"], "odd": [pandas.Period("2024-01")]})
        frame.to_parquet(tmp_path / "t.parquet")
    else:
        rows = "SELECT 'a' AS prompt, INTERVAL 3 MONTH AS odd"
        with duckdb.connect() as database:
            database.execute(f"COPY ({rows}) TO '{tmp_path}/t.parquet' (FORMAT parquet)")
    assert "the column 'odd' has the type" in refusal(tmp_path / "t.parquet").problem


def delta(folder: Path) -> Path:
    import deltalake

    deltalake.write_deltalake(str(folder / "prompts"), WRITTEN, partition_by=["style"])
    deltalake.DeltaTable(str(folder / "prompts")).delete("seed = 1")
    return folder / "prompts"


def iceberg(folder: Path) -> Path:
    from pyiceberg.catalog.sql import SqlCatalog

    catalog = SqlCatalog("c", uri=f"sqlite:///{folder}/c.db", warehouse=f"file://{folder}/warehouse")
    catalog.create_namespace("n")
    table = catalog.create_table("n.prompts", schema=WRITTEN.schema)
    with table.update_spec() as update:
        update.add_identity("style")
    table.append(WRITTEN)
    table.delete("seed = 1")
    return Path(table.location().removeprefix("file://"))


def lance(folder: Path) -> Path:
    import lance as library

    library.write_dataset(WRITTEN, str(folder / "prompts.lance")).delete("seed = 1")
    return folder / "prompts.lance"


def saved_to_disk(folder: Path) -> Path:
    import datasets

    rows = datasets.Dataset.from_dict(WRITTEN.to_pydict())
    rows.filter(lambda row: row["seed"] != 1).save_to_disk(folder / "prompts")
    return folder / "prompts"


WRITTEN = pa.table({"prompt": ["deleted", "b"], "seed": [1, 2], "style": ["oil", "ink"]})


@pytest.mark.parametrize("write", [delta, iceberg, lance, saved_to_disk])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_table_of_another_library_is_refused_from_everywhere(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    place = write(tmp_path)
    files = {*place.rglob("*.parquet"), *place.rglob("*.metadata.json")}
    assert files or write in (lance, saved_to_disk)
    globs = [f"{place}/*.parquet", f"{place}/**/*.parquet", f"{tmp_path}/**/*.parquet"] if files else []
    for where in [place, place.parent, tmp_path, *files, *(one.parent for one in files), *globs]:
        error = refusal(where)
        assert f"{place} is a " in error.problem, (where, error.problem)


def test_an_offline_hub_is_not_a_missing_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in refusal("hf://datasets/org/name/prompts.parquet").problem


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("b.jpg", "a.PNG", "sea/c.webp", ".hidden.png", "_old/d.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"any")
    (folder / "notes.md").write_text("no row")
    return folder


def test_each_file_is_a_row_in_a_fixed_order(photos: Path) -> None:
    names = ["a.PNG", "b.jpg", "sea/c.webp"]
    assert rows(photos) == [{"image": name, "file": name} for name in names]
    table = open_table(f"{photos}/")
    assert table.num_rows == 3 and table.stamps() == open_table(str(photos)).stamps()
    (photos / "d.png").touch()
    assert open_table(str(photos)).stamps() != table.stamps()


def test_texts_of_the_same_name_are_prompts(photos: Path) -> None:
    (photos / "a.txt").write_text("﻿ a fox \n", "utf-8")
    (photos / "sea" / "c.txt").write_text("Füchse", "utf-8")
    (photos / "other.txt").write_text("of no file")
    assert [row["prompt"] for row in rows(photos)] == ["a fox", None, "Füchse"]


def test_every_picture_that_rows_can_name_is_a_row_and_the_rest_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = "a.png b.jfif c.gif d.jpe _DSC1.jpg a.TXT b.caption c.txt e.heic f.avif g.heic d.md _old/h.png x"
    of_systems = ["@eaDir/a.png/SYNO.jpg", "#recycle/a.png", "Thumbs.db", ".DS_Store"]
    for name in [*names.split(), *of_systems, " i.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    expected = {"_DSC1.jpg": None, "a.png": "a.TXT", "b.jfif": "b.caption", "c.gif": "c.txt", "d.jpe": None}
    expected["./ i.png"] = None  # as cells are stripped
    assert {row["image"]: row["prompt"] for row in rows(tmp_path)} == expected
    others = {"2 .heic", "1 .avif", "1 .md", "1 .png", "1 without an extension"}
    assert {*caplog.messages[0].partition("not read: ")[2].split(", ")} == others
    assert [row["image"] for row in rows(f"{tmp_path}/*.jp*")] == ["_DSC1.jpg", "d.jpe"]
    assert "contains 2 .heic" in refusal(f"{tmp_path}/*.heic").problem


def test_files_beside_tables_are_counted_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.csv", "b.xlsx", "c.csv.zst", "d.feather", "_SUCCESS", ".a.csv.crc", "README.md"):
        (tmp_path / name).write_text("prompt\na\n")
    assert rows(tmp_path) == [{"prompt": "a"}]
    assert {*caplog.messages[0].partition("not read: ")[2].split(", ")} == {"1 .xlsx", "1 .zst", "1 .feather"}


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"caf\xe9/a.png", b"caf\xe9.csv"])
def test_a_name_that_is_not_utf_8_is_refused_by_that_name(name: bytes, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    path.parent.mkdir(exist_ok=True)
    path.write_text("prompt\na\n")
    assert "caf\\xe9" in refusal(tmp_path).problem and "rename" in refusal(tmp_path).fix


def test_videos_are_rows_too_also_in_a_bucket() -> None:
    bucket = fsspec.filesystem("memory")
    for name, content in {
        "b.mp4": b"v",
        "a.mkv": b"v",
        "a.txt": b"rain",
        "c.GIF": b"v",
        "d.MTS": b"v",
    }.items():
        bucket.pipe_file(f"/films/{name}", content)
    assert rows("memory://films") == [
        {"video": "a.mkv", "file": "a.mkv", "prompt": "rain"},
        *({"video": name, "file": name, "prompt": None} for name in ("b.mp4", "c.GIF", "d.MTS")),
    ]


def test_table_files_go_before_images(photos: Path) -> None:
    (photos / "metadata.jsonl").write_text('{"prompt": "a"}\n')
    assert rows(photos) == [{"prompt": "a"}]


def test_what_cannot_be_used_is_refused(photos: Path) -> None:
    (photos / "a.txt").write_bytes(b"F\xfcchse")
    assert "a.txt is not UTF-8" in refusal(photos).problem
    (photos / "a.txt").write_text("a" * 65_537)
    assert "a.txt is longer than 65,536 bytes" in refusal(photos).problem
    (photos / "film.mp4").touch()
    assert "images and videos" in refusal(photos).problem and "only images or" in refusal(photos).fix
    (photos / "none").mkdir()
    assert "no table files" in refusal(photos / "none").problem


__all__ = ["hub"]  # a fixture


@pytest.fixture
def dataset(hub: HubServer, tmp_path: Path) -> str:
    (tmp_path / "set" / "data").mkdir(parents=True)
    for number in range(2):
        table = pa.table({"prompt": [f"a fox {number}"], "seed": [number]})
        pq.write_table(table, tmp_path / "set" / "data" / f"train-{number}.parquet")
    (tmp_path / "set" / "README.md").write_text("prompts")
    hub.repos["org/prompts"] = tmp_path / "set"
    HfFileSystem.clear_instance_cache()
    return "hf://datasets/org/prompts"


def test_a_dataset_of_the_hub_is_a_table(dataset: str) -> None:
    prompts = ["a fox 0", "a fox 1"]
    assert [row["prompt"] for row in rows(dataset)] == prompts
    assert [row["prompt"] for row in rows(f"{dataset}/data/*.parquet")] == prompts
    assert [row["prompt"] for row in rows(f"{dataset}@main/data/train-1.parquet")] == prompts[1:]


@pytest.mark.parametrize(
    ("repo", "reason", "fix"),
    [
        ("gated", "cannot be read: GatedRepo", "accept its terms"),
        ("private", "cannot be read: RepoNotFound", "for a private repository set HF_TOKEN"),
        ("none", "cannot be read: RepoNotFound", "check the spelling"),
        ("prompts@v9", "cannot be read: RevisionNotFound", "a branch, a tag or a commit"),
        ("prompts/data/none.csv", "does not exist", "check the path"),
    ],
)
def test_the_reason_of_the_hub_reaches_the_user(
    repo: str, reason: str, fix: str, dataset: str, hub: HubServer
) -> None:
    for name in ("gated", "private"):
        hub.repos[f"org/{name}"] = hub.repos["org/prompts"]
        getattr(hub, name).add(f"org/{name}")
    url = f"hf://datasets/org/{repo}"
    for place in [url] + [f"{url}/data/train-0.parquet", f"{url}/data/*.parquet"] * ("none.csv" not in url):
        refused = refusal(place)
        assert reason in refused.problem and fix in refused.fix
    if "none" not in repo:
        with pytest.raises(JobError) as unread:
            lines_of(f"{url}/a.txt", "sweep.prompt.file", {})
        assert fix in unread.value.fix
        with pytest.raises(InputError) as unread_image:
            Inputs([url]).read(f"{url}/a.png")
        assert fix in unread_image.value.fix


@pytest.mark.parametrize(("status", "reason"), [(401, "Unauthorized"), (403, "Forbidden"), (404, "")])
def test_the_reason_of_a_web_server_reaches_the_user(status: int, reason: str) -> None:
    class Refusing(Answering):
        def do_GET(self) -> None:
            self.send_error(status)

        do_HEAD = do_GET

    with answered_by(Refusing) as url:
        problem = refusal(f"{url}/prompts.csv").problem
    assert f"{status}, message='{reason}'" in problem if reason else "does not exist" in problem

"""Records as tables of Iceberg, Delta Lake and Lance: what is new is added, in one commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

import framefleet
from framefleet import Store
from framefleet.cluster.driver.lock import DriverLock
from framefleet.pipeline.errors import JobError, ServiceError, StoreError
from framefleet.plugins.export import open_table
from tests.commands import command
from tests.outputs import write_output
from tests.rows import record
from tests.small_output import rendered


def _iceberg(place: Path) -> Any:
    from pyiceberg.catalog import load_catalog

    uri = f"sqlite:///{place}/catalog.db"
    catalog = load_catalog("framefleet", type="sql", uri=uri, warehouse=str(place))
    return catalog.load_table("framefleet.records")


def _delta(place: Path) -> Any:
    return deltalake.DeltaTable(str(place))


def _lance(place: Path) -> Any:
    import lance

    return lance.dataset(str(place))


READ: Mapping[str, Callable[[Path], tuple[pa.Table, int]]] = {
    "iceberg": lambda place: (_iceberg(place).scan().to_arrow(), len(_iceberg(place).snapshots())),
    "delta": lambda place: (pa.table(_delta(place).to_pyarrow_table()), _delta(place).version() + 1),
    "lance": lambda place: (_lance(place).to_table(), len(_lance(place).versions())),
}


def add(folder: Path, numbers: range, *, epoch: int, **changed: Any) -> None:
    records = [record(number, **{"seed": number} | changed) for number in numbers]
    write_output(folder, records, run=f"{epoch:06d}-20260102T120000-89abcdef")


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    return sorted(table.to_pylist(), key=lambda row: str(row["row_id"]))


@pytest.mark.parametrize("format", READ)
def test_a_table_has_the_records_after_every_export(tmp_path: Path, format: Any) -> None:
    output, place = tmp_path / "out", tmp_path / "table"

    def export() -> int:
        return framefleet.export(str(output), str(place), format=format).num_rows

    steps: list[tuple[range, dict[str, Any], int]] = [
        (range(3), {}, 3),
        (range(3, 5), {}, 2),
        (range(4, 5), {"seed": 99}, 5),  # it counts in the place of an earlier one: all rows are written
        (range(5, 7), {}, 2),
    ]
    for epoch, (numbers, changed, num_new) in enumerate(steps, start=1):
        add(output, numbers, epoch=epoch, **changed)
        assert export() == num_new
        known = framefleet.read_records(str(output))
        assert rows_of(READ[format](place)[0].select(known.column_names)) == rows_of(known)
    before = READ[format](place)[1]
    assert export() == 0
    assert READ[format](place)[1] == before, "nothing new is no commit"
    for part in sorted((output / "records").iterdir())[:1]:
        part.unlink()
    export()
    assert READ[format](place)[0].num_rows == framefleet.read_records(str(output)).num_rows == 4


@pytest.mark.parametrize("format", READ)
def test_conditions_and_columns_choose_records(tmp_path: Path, format: Any) -> None:
    output, place = tmp_path / "out", tmp_path / "table"
    add(output, range(4), epoch=1)
    framefleet.export(str(output), str(place), format=format, where="seed > 1", columns=["seed"])
    found, _ = READ[format](place)
    assert (sorted(found["seed"].to_pylist()), found.column_names) == ([2, 3], ["row_id", "seed"])
    with pytest.raises(JobError, match="where differ"):
        framefleet.export(str(output), str(place), format=format)


def test_what_a_table_cannot_be_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "out"
    add(output, range(1), epoch=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    for to, more, said in [
        ("other", {}, "holds other files"),
        ("new", {"caption": "{prompt}"}, "caption is set"),
        ("new", {"columns": ["seeds"]}, "no column 'seeds'"),
        ("out/table", {}, "inside each other"),
    ]:
        with pytest.raises(JobError, match=said):
            framefleet.export(str(output), str(tmp_path / to), format="delta", **more)
    for to, said in [("memory://x/y", "needs a catalog"), ("iceberg:prod.records", "names no table")]:
        with pytest.raises(JobError, match=said):
            framefleet.export(str(output), to, format="iceberg")
    deltalake.write_deltalake(str(tmp_path / "theirs"), pa.table({"a": [1]}))
    with pytest.raises(JobError, match="another export"):
        framefleet.export(str(output), str(tmp_path / "theirs"), format="delta")


@pytest.mark.parametrize(
    ("format", "name", "column"),
    [
        ("delta", "mine", pa.array([1], pa.time64("us"))),
        ("lance", "a.b", pa.array([1])),
        ("iceberg", "mine", pa.array([1], pa.duration("s"))),
    ],
)
def test_columns_of_other_types_are_refused(format: Any, name: str, column: pa.Array, tmp_path: Path) -> None:
    rendered(Store(str(tmp_path / "out")), 1, carried={name: column})
    with pytest.raises(JobError, match=f"{format} cannot hold these records") as caught:
        framefleet.export(str(tmp_path / "out"), str(tmp_path / "to"), format=format)
    assert "leave a column out" in caught.value.fix and "\n" not in caught.value.problem


@pytest.mark.parametrize("format", READ)
def test_a_first_export_that_fails_halfway_is_begun_again(
    tmp_path: Path, format: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, place = tmp_path / "out", tmp_path / "table"
    for epoch in (1, 2):
        add(output, range(3 * epoch, 3 * epoch + 3), epoch=epoch)
    read = open_table.records_where

    def fails(*arguments: Any) -> Iterator[pa.Table]:
        yield from islice(read(*arguments), 1)
        raise StoreError("gone", "wait")

    with monkeypatch.context() as patch, pytest.raises((StoreError, ServiceError), match="gone"):
        patch.setattr(open_table, "records_where", fails)
        framefleet.export(str(output), str(place), format=format)
    (place / "data").mkdir(exist_ok=True)
    (place / "data" / "left.parquet").write_bytes(b"of a process that was killed")
    with pytest.raises(JobError, match="another export: where differ"):
        framefleet.export(str(output), str(place), format=format, where="seed > 3")
    assert framefleet.export(str(output), str(place), format=format).num_rows == 6
    assert READ[format](place)[0].num_rows == 6


@pytest.mark.parametrize("format", READ)
def test_parts_that_people_put_there_are_read_too_and_none_twice(tmp_path: Path, format: Any) -> None:
    output, place = tmp_path / "out", tmp_path / "table"
    add(output, range(3), epoch=1)
    add(tmp_path / "elsewhere", range(2, 5), epoch=1)

    def part(folder: Path) -> Path:
        return next((folder / "records").glob("part-*"))

    theirs = part(tmp_path / "elsewhere")
    added = [("a.parquet", part(output).read_bytes(), 3), ("b.parquet", theirs.read_bytes(), 5)]
    for name, content, num_rows in added:
        framefleet.export(str(output), str(place), format=format)
        (output / "records" / name).write_bytes(content)
        framefleet.export(str(output), str(place), format=format)
        assert READ[format](place)[0].num_rows == num_rows
        assert len({row["row_id"] for row in rows_of(READ[format](place)[0])}) == num_rows


def test_a_table_has_one_committer(tmp_path: Path) -> None:
    add(tmp_path / "out", range(1), epoch=1)
    with (
        DriverLock(Store(str(tmp_path / "table/.framefleet"))),
        pytest.raises(JobError, match="is being written"),
    ):
        framefleet.export(str(tmp_path / "out"), str(tmp_path / "table"), format="lance")


def test_the_command_names_what_is_new(tmp_path: Path) -> None:
    add(tmp_path / "out", range(3), epoch=1)
    arguments = "export", str(tmp_path / "out"), str(tmp_path / "table"), "--format", "lance"
    assert "new in the table: 3 records" in command(*arguments).stderr
    assert "new in the table: 0 records" in command(*arguments).stderr

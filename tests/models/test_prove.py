"""Rows that a coin drew, in a certificate that somebody else checks by rendering them again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import framefleet
from framefleet import JobError
from framefleet.plugins.prove.certificate import Certificate, record_hash, seal_of
from tests.commands import command
from tests.driven import render_driven
from tests.jobs import job_values, records_of, write_table
from tests.models.test_record_law import alter
from tests.tiny import tiny


@pytest.fixture(scope="module")
def certificate(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("certificate") / "made"
    framefleet.prove(rendered, place, rows=2, coin="round 7")
    return place


@pytest.mark.promise("A stranger can check it", "Anybody with the weights can render the rows")
def test_a_stranger_checks_a_certificate_in_another_folder(rendered: Path, tmp_path: Path) -> None:
    sealed = command("prove", rendered)
    seal = sealed.stdout.split()[-1]
    assert sealed.exit_code == 0 and sealed.stdout.startswith("seal of 4 rows: "), sealed.output
    made = command("prove", rendered, tmp_path / "made", "--rows", "3", "--coin", "block 000000000000000000")
    assert made.exit_code == 0 and seal in made.stdout and "3 rows drawn" in made.stdout, made.output
    theirs = tmp_path / "theirs"
    shutil.move(tmp_path / "made", theirs / "certificate")
    shutil.copytree(tiny("wan"), theirs / "weights")
    texts = b"".join(path.read_bytes() for path in (theirs / "certificate").rglob("*") if path.is_file())
    assert str(rendered.parent).encode() not in texts and str(tiny("wan")).encode() not in texts
    checking = [sys.executable, "-m", "framefleet", "check", "certificate", "--model", "weights"]
    ended = subprocess.run(checking, cwd=theirs, stdout=subprocess.PIPE, text=True, check=True)
    assert ended.stdout.count(": equal\n") == 3 and seal in ended.stdout
    bound = "3 of 3 equal: with 95 % confidence, at most 25 % of 4 are not what the records say"
    assert ended.stdout.splitlines()[-1] == bound


def test_a_row_that_is_not_what_its_record_says_counts_against_it(rendered: Path, tmp_path: Path) -> None:
    out = shutil.copytree(rendered, tmp_path / "out")
    shutil.rmtree(out / "drivers")
    other = pq.read_table(next((out / "records").iterdir()))["frames_sha256"][1].as_py()
    row_id = alter(out, "frames_sha256", lambda cell, _: other)
    framefleet.prove(out, tmp_path / "made", rows=4, coin="1")
    checked = framefleet.check_certificate(tmp_path / "made", framefleet.Given(model=str(tiny("wan"))))
    (wrong,) = (row for row in checked.rows if row.reason)
    assert wrong.row_id == row_id and wrong.reason.startswith("record damaged, frames_sha256")
    assert checked.bound.startswith("3 of 4 equal: ") and checked.most_off == 1


def test_a_drawn_row_without_a_record_counts_against_it(rendered: Path, tmp_path: Path) -> None:
    out = shutil.copytree(rendered, tmp_path / "out")
    shutil.rmtree(out / "drivers")
    (part,) = (out / "records").iterdir()
    table = pq.read_table(part)
    part.unlink()
    pq.write_table(table.slice(1), part.with_name("part-x.parquet"))
    proven = framefleet.prove(out, tmp_path / "made", rows=4, coin="1")
    assert (proven.num_rows, proven.num_missing) == (4, 1)
    elsewhere = command("check", tmp_path / "made")
    assert elsewhere.exit_code == 2 and "\nhint: add --model PLACE\n" in elsewhere.stderr, elsewhere.stderr
    checked = command("check", tmp_path / "made", "--model", tiny("wan"))
    assert checked.exit_code == 1 and "3 of 4 equal" in checked.stdout, checked.output
    assert f"{table['row_id'][0]}: it has no record" in checked.stdout


def places_in(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where each number, text, ... of a certificate is."""
    if isinstance(value, dict | list) and value:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places_in(inner, (*above, key))
    else:
        yield above


def other(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + 1
    return ("0" if value[0] != "0" else "1") + value[1:] if value else "x"


def test_each_altered_field_of_a_certificate_is_noticed(certificate: Path) -> None:
    values = json.loads((certificate / "certificate.json").read_text())
    assert not list(Certificate.model_validate(values).problems())
    places = [*places_in(values)]
    assert len(places) > 100
    for place in places:
        changed = json.loads(json.dumps(values))
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = other(inner[place[-1]])
        assert is_refused(changed), place
        # Nor does another digest help, unless by chance another coin draws the same two of four rows.
        assert place[0] in ("digest", "coin") or is_refused(digested(changed)), place
    for rows in (values["rows"][::-1], values["rows"][:1] * 2, [values["rows"][1]]):
        assert is_refused(digested(values | {"rows": rows}))


def is_refused(values: dict[str, Any]) -> bool:
    try:
        return bool([*Certificate.model_validate(values).problems()])
    except ValueError:  # not one at all
        return True


def digested(values: dict[str, Any]) -> dict[str, Any]:
    try:
        return values | {"digest": Certificate.model_validate(values).own_digest}
    except ValueError:
        return values


def test_what_is_no_certificate_is_refused(certificate: Path, tmp_path: Path) -> None:
    text = (certificate / "certificate.json").read_text()
    (tmp_path / "certificate.json").write_text(text.replace("round 7", "round 8"))
    ended = command("check", tmp_path)
    assert ended.exit_code == 2 and "its digest does not match" in ended.stderr
    (tmp_path / "certificate.json").write_text(text.replace('"job": {', '"job": {"odd": NaN,'))
    ended = command("check", tmp_path)
    assert ended.exit_code == 2 and "was altered: " in ended.stderr, ended.output
    (tmp_path / "certificate.json").write_text("[]")
    assert command("check", tmp_path / "certificate.json").exit_code == 2
    with pytest.raises(JobError, match="does not exist"):
        framefleet.check_certificate(tmp_path / "none")


@pytest.mark.parametrize("coin", ["", "1" * 1001, "\udcff", "a\nb"])
def test_what_is_no_coin_is_refused(coin: str, rendered: Path) -> None:
    with pytest.raises(JobError, match="the coin "):
        framefleet.prove(rendered, coin=coin)


@pytest.mark.parametrize(("option", "unused"), [(["--rows", "4"], "--rows"), (["made"], "FOLDER")])
def test_without_a_coin_what_is_for_drawn_rows_is_refused(
    option: list[str], unused: str, rendered: Path
) -> None:
    refused = command("prove", rendered, *option)
    assert refused.exit_code == 2 and f"hint: leave {unused} out" in refused.stderr, refused.output


@pytest.mark.parametrize(
    "change", [{"bytes": None}, {"arguments": 5}, {"row_indices": None}, {"started_at": 1}]
)
def test_what_no_record_says_is_refused(change: dict[str, Any], certificate: Path, tmp_path: Path) -> None:
    values = json.loads((certificate / "certificate.json").read_text())
    (tmp_path / "certificate.json").write_text(json.dumps(of_one(values, change)))
    with pytest.raises(JobError):
        framefleet.check_certificate(tmp_path)


def of_one(values: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return a certificate of one record that was forged throughout."""
    record = values["rows"][0]["record"] | change
    record = {name: value for name, value in record.items() if value is not None}
    root = record_hash(record).hex()
    values |= {"num_rows": 1, "root": root, "seal": seal_of(root, num_rows=1, job=values["job"])}
    return digested(values | {"rows": [{"position": 0, "record": record, "path": []}]})


def test_a_certificate_names_no_file_outside_of_its_folder(certificate: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"of this machine")
    values = json.loads((certificate / "certificate.json").read_text())
    record = values["rows"][0]["record"]
    arguments = json.loads(record["arguments"]) | {"image": {"uri": "x", "sha256": "../../secret"}}
    record["arguments"] = json.dumps(arguments)
    theirs = tmp_path / "a" / "b"
    theirs.mkdir(parents=True)
    (theirs / "certificate.json").write_text(json.dumps(of_one(values, {})))
    with pytest.raises(JobError, match="column 'arguments' of the record"):
        framefleet.check_certificate(theirs)


def test_what_drawn_rows_take_lies_beside_the_certificate(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(np.full((24, 40, 3), 90, np.uint8)).save(pictures / "0.png")
    rows = [{"prompt": "a ball", "image": "0.png", "seed": 0}]
    values = job_values(write_table(pictures / "t.parquet", rows), tmp_path / "out", model="wan_i2v")
    values["defaults"].pop("max_sequence_length", None)
    render_driven(values)
    framefleet.prove(tmp_path / "out", tmp_path / "made", coin="1")
    shutil.rmtree(pictures)
    assert len(records_of(tmp_path / "out")) == 1
    checked = framefleet.check_certificate(tmp_path / "made", framefleet.Given(model=str(tiny("wan_i2v"))))
    bound = "1 of 1 equal: with 95 % confidence, at most 0 % of 1 are not what the records say"
    assert checked.bound == bound

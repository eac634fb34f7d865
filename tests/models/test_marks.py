"""Jobs with marks: what plan says of them, that rows repeat with them, and which changes make other clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from framefleet import JobError, replay, verify
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.claim import check_claim
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.media.media import decode
from framefleet.plugins.marks.label import label_in
from tests.certificates import issue
from tests.commands import command
from tests.here import render_here
from tests.jobs import job_values, prompt_rows, records_of, write_job, write_table

MARKS: dict[str, Any] = {
    "provider": {"name": "Example", "system": "Painter", "version": "2"},
    "watermark": "spread",
    "label": True,
}


def values_of_job(folder: Path, marks: dict[str, Any], **media: Any) -> dict[str, Any]:
    table = write_table(folder / "t.parquet", prompt_rows(2))
    return job_values(table, folder / "out", marks=marks, media=media)


def resolved_claim(values: dict[str, Any]) -> object:
    return check_claim(resolve_job(load_job(values), Callback()))


@pytest.mark.parametrize("format", ["mp4", "mkv"])
def test_rows_repeat_with_their_marks_and_damage_to_a_digest_is_told_apart(
    tmp_path: Path, format: str
) -> None:
    output, row_ids = render_here(values_of_job(tmp_path, MARKS, format=format))
    replayed = replay(output, row_ids[0])
    assert replayed.is_equal
    named = {name: then == now for name, then, now in replayed.digests}
    assert named["marked_sha256"] and named["frames_sha256"] and named["media_sha256"]
    record, *_ = records_of(output)
    assert record["marked_sha256"] != record["frames_sha256"]
    assert json.loads(record["marks"]) == {"label": True, "watermarks": ["spread"]}
    content = (Path(output) / record["path"]).read_bytes()
    if format == "mkv":
        assert decode(content).shape[0] == record["num_frames"]
        assert (Path(output) / f"{record['path']}.xmp").is_file()
    else:
        assert label_in(content) is not None
    assert verify(output, files=True).is_well
    assert verify(output, row_ids=[row_ids[1]]).is_well


def test_plan_says_which_marks_clips_will_carry(tmp_path: Path) -> None:
    certificate, key = issue(tmp_path)
    sign = {"certificate": str(certificate), "private_key": str(key)}
    job = write_job(tmp_path / "job.yaml", values_of_job(tmp_path, {**MARKS, "sign": sign}))
    ended = command("plan", job)
    assert "marks: C2PA manifest, watermark spread, AIGC and IPTC label" in ended.stdout, ended.stderr
    assert "marks:" not in command("plan", job, "--set", "marks={}").stdout


def test_other_marks_are_other_clips_and_a_renewed_certificate_is_not(tmp_path: Path) -> None:
    (keys := tmp_path / "keys").mkdir()
    signs = [
        {"certificate": str(certificate), "private_key": str(key)}
        for certificate, key in (issue(keys, name=name) for name in ("first", "second"))
    ]
    values = values_of_job(tmp_path, {**MARKS, "sign": signs[0]})
    output, row_ids = render_here(values)
    written = json.loads((Path(output) / "job.json").read_text())["job"]["marks"]
    assert [*written["sign"]] == ["certificate_sha256"]
    assert written["watermark"] == [{"name": "spread", "weights": None, "digest": None}]
    assert replay(output, row_ids[0]).is_equal
    assert resolved_claim(values | {"marks": {**MARKS, "sign": signs[1]}})
    for marks, said in (
        (MARKS, "marks.sign: True there, False here"),
        ({**MARKS, "sign": signs[0], "label": False}, "marks.label: True there, False here"),
        ({**MARKS, "sign": signs[0], "watermark": []}, "marks.watermark: .*spread"),
        ({**MARKS, "sign": signs[0], "provider": {"name": "Other"}}, "marks.provider.name: Example there"),
    ):
        with pytest.raises(JobError, match=said):
            resolved_claim(values | {"marks": marks})


def test_marks_that_cannot_be_are_refused_with_their_key(tmp_path: Path) -> None:
    for marks, said in (
        ({"watermark": "spraed"}, "marks.watermark"),
        ({"watermark": {"name": "videoseal", "weights": str(tmp_path / "none.pth")}}, "cannot be read"),
        ({"label": True}, "marks.label"),
    ):
        ended = command("plan", write_job(tmp_path / "job.yaml", values_of_job(tmp_path, marks)))
        assert (ended.exit_code, said in ended.stderr) == (2, True), ended.stderr

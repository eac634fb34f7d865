"""Rows of another machine, rendered again: how far their clips are, and whether that is usual."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import framefleet
from framefleet import Output, Store
from framefleet.pipeline.outputs.media.media import decode
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.plugins.keep.replay.machines import AuditedKind, AuditedSides, audits_for
from tests.commands import command
from tests.driven import render_driven
from tests.jobs import job_values, prompt_rows, records_of, write_table
from tests.models.test_verify import change_record, clip_of, off_by, recorded_otherwise, rendered, verified
from tests.tiny import tiny

ELSEWHERE = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "AVX2"}


def render(folder: Path, name: str) -> Path:
    model = {"path": str(tiny("wan")), "dtype": "bf16", "device": "cpu", "threads": 1}
    if name == "there":
        model["path"] = model_of(folder / "here")
    values = job_values(write_table(folder / "t.parquet", prompt_rows(3)), folder / name)
    render_driven(values | {"model": model, "media": {"format": "mkv"}, "keep": {"latents": [1, -1]}})
    return folder / name


def model_of(output: Path) -> str:
    return json.loads((output / "job.json").read_text())["job"]["model"]["path"]


def told(*words: str | Path) -> list[Any]:
    """Return the exit code of a command, and each line of its JSON."""
    ended = command(*words, "--json")
    return [ended.exit_code, *map(json.loads, ended.stdout.splitlines())]


def look_from_another_machine(folder: Path) -> dict[str, Any]:
    """Return what each command says of an output, where it is rendered by other instructions."""
    here = folder / "here"
    row_id = records_of(here)[0]["row_id"]
    unknown = told("verify", here, "--row", row_id)
    there, made = render(folder, "there"), (folder / "made", "--model", model_of(here))
    audited = told("audit", here, "--against", there)
    far = shutil.copytree(here, folder / "far")
    shutil.rmtree(far / "drivers")
    frames = decode(clip_of(far, row_id).read_bytes())
    recorded_otherwise(far, row_id, 255 - frames, Media(format="mkv"))
    return {
        "unknown": unknown,
        "audited": audited[1]["total"],
        "within": told("verify", here, "--row", row_id),
        "far": told("verify", far, "--row", row_id, "--audit", here),
        "replayed": command("replay", here, row_id).stdout,
        "checked": told("check", *made, "--audit", here),
        "unaudited": told("check", *made),
        "none": command("check", *made, "--audit", there).stderr,
    }


def test_another_machine_is_told_from_equal_and_from_too_far(tmp_path: Path) -> None:
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this processor has one kind of instructions")
    here = render(tmp_path, "here")
    framefleet.prove(here, tmp_path / "made", rows=3, coin="1")
    assert told("verify", here)[0] == 0
    code = f"import json, sys, pathlib; from {__name__} import look_from_another_machine as look\n"
    code += "print(json.dumps(look(pathlib.Path(sys.argv[1]))))"
    ended = subprocess.run(
        [sys.executable, "-c", code, tmp_path], env=os.environ | ELSEWHERE, stdout=subprocess.PIPE, check=True
    )
    said = json.loads(ended.stdout.splitlines()[-1])
    exit_code, row, _ = said["unknown"]
    assert exit_code == 1 and row["verdict"] == "different" and row["machine"]["is_within"] is None
    assert row["max_levels"] > 1 and row["psnr_db"] > 20 and row["first_step"] == 1
    assert said["audited"]["num_compared"] == 3 > said["audited"]["num_equal"]
    exit_code, row, last = said["within"]
    assert exit_code == 1 and row["verdict"] == "other machine" and last["verdicts"] == {"other machine": 1}
    assert "cpu" in row["machine"]["changed"] and row["machine"]["num_clips"] == 3
    assert said["far"][0] == 1
    far = said["far"][1]
    assert far["verdict"] == "different" and far["machine"]["is_within"] is False
    assert (
        "verdict: other machine, " in said["replayed"] and "latents differ from step 1 on" in said["replayed"]
    )
    assert "no farther than any of 3 clips" in said["replayed"]
    exit_code, checked = said["checked"]
    assert exit_code == 1 and checked["num_equal"] + checked["num_other_machine"] == 3 == checked["most_off"]
    assert checked["most_far"] == 0 and checked["bound"].endswith("and at most 0 % are not")
    exit_code, checked = said["unaudited"]
    assert exit_code == 1 and checked["num_other_machine"] == 0 and checked["most_far"] == 3
    reason = next(row["reason"] for row in checked["rows"] if row["reason"])
    assert "of 255 levels" in reason and "(see --audit)" in reason
    assert "has no audit that compares clips of two machines" in said["none"]


@pytest.fixture(scope="module")
def mp4s(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """An output of whose lossy clips the first was rendered elsewhere, a level off."""
    out, row_ids = rendered(tmp_path_factory.mktemp("machines"))
    frames = decode(clip_of(out, row_ids[0]).read_bytes())
    recorded_otherwise(out, row_ids[0], off_by(frames, 1, 0.01), Media(), cpu="another")
    return out, row_ids


def sides(out: Path, **changed: Any) -> AuditedSides:
    digest = records_of(out)[0]["model_digest"]
    values: dict[str, Any] = {"changed": ("cpu",), "model_digests": (digest,), "formats": ("mp4",)}
    return AuditedSides(**values | changed)


@pytest.mark.parametrize(
    ("audited", "kind", "worst", "is_within"),
    [
        ({}, "generate 5 x 64 x 64, 32 tokens", (255.0, 20.0), True),
        ({}, "generate 5 x 64 x 64, 32 tokens", (255.0, 90.0), False),
        ({}, "generate 5 x 64 x 64, 32 tokens", (0.0, None), False),
        ({}, "generate 9 x 64 x 64", (255.0, 20.0), True),  # of others, where none of its kind was compared
        ({"formats": ("mkv",)}, "", (255.0, 20.0), None),
        ({"formats": ("mkv", "mp4")}, "", (255.0, 20.0), None),
        ({"model_digests": ("5" * 64,)}, "", (255.0, 20.0), None),
        ({"changed": ("cpu", "dtype", "numerics.dtype")}, "", (255.0, 20.0), None),
        ({"changed": ("framefleet",)}, "", (255.0, 20.0), None),
        ({"changed": ("numerics.threads", "threads")}, "", (255.0, 20.0), True),
    ],
)
def test_only_audits_of_two_machines_of_this_model_and_format_count(
    audited: dict[str, Any],
    kind: str,
    worst: tuple[float, float | None],
    is_within: bool | None,
    mp4s: tuple[Path, list[str]],
) -> None:
    out, row_ids = mp4s
    of_kind = AuditedKind(kind=kind, num_compared=7, max_levels=(worst[0],) * 3, psnr_db=(worst[1],) * 3)
    report = {"output": "o", "total": of_kind, "kinds": [of_kind], "sides": sides(out, **audited)}
    Store(str(out)).write("audits/reports/x.json", json.dumps(report, default=as_json).encode())
    _, (row,), _ = verified(out, row_ids[0])
    assert row["machine"]["is_within"] is is_within and row["is_decoded"] is True
    assert row["verdict"] == ("other machine" if is_within else "off by about one")


def as_json(value: Any) -> Any:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def test_what_a_lossy_file_does_not_keep_of_another_machine_is_no_damage(
    mp4s: tuple[Path, list[str]], tmp_path: Path
) -> None:
    out, row_id = shutil.copytree(mp4s[0], tmp_path / "out"), mp4s[1][1]
    shutil.rmtree(out / "audits", ignore_errors=True)
    environment = json.loads(Output.open(str(out)).record(row_id).environment) | {"cpu": "another"}
    change_record(out, row_id, frames_sha256="5" * 64, environment=json.dumps(environment))
    _, (row,), _ = verified(out, row_id)
    assert (row["verdict"], row["max_levels"], row["psnr_db"]) == ("off by about one", 0.0, None)
    assert row["machine"]["changed"] == ["cpu"]


def test_a_report_that_is_none_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("audits/reports/x.json", b'{"output": 5}')
    assert audits_for(store, None, {}) == []  # of the row's own output, which is compared all the same
    with pytest.raises(framefleet.JobError, match=r"reports/x\.json"):
        audits_for(store, str(tmp_path), {})
    nothing = AuditedKind(kind="", num_compared=0, max_levels=(), psnr_db=())
    same = AuditedSides(changed=(), model_digests=(), formats=())
    report = {"output": "o", "total": nothing, "kinds": [], "sides": same}
    store.write("audits/reports/x.json", json.dumps(report, default=as_json).encode())
    with pytest.raises(framefleet.JobError, match=r"--audit: .* has no audit that compares clips"):
        audits_for(store, str(tmp_path), {})

"""`sweep:` becomes rows: what is crossed, drawn, filled in, counted, and refused before any row is made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import example, given, strategies

from framefleet.jobs.job.file import load_job, set_values
from framefleet.jobs.job.schema import Job
from framefleet.jobs.job.yaml_text import parse_yaml, yaml_of
from framefleet.jobs.options import option_sets
from framefleet.jobs.render.claim import claim
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.render.survey import Survey, survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.model.specs.signature import ArgumentKind
from framefleet.pipeline.rows.sweeps.factors import lines_of
from framefleet.pipeline.rows.sweeps.sweep import Swept, open_sweep
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.table import open_table
from tests.jobs import ROOT, job_values

KINDS: dict[str, ArgumentKind] = {
    "prompt": "str",
    "negative_prompt": "str",
    "seed": "int",
    "num_inference_steps": "int",
    "guidance_scale": "float",
    "sigmas": "list[float]",
    "images": "images",
}


def job_of(sweep: Mapping[str, Any], **more: Any) -> Job:
    return load_job({"output": "out", "model": "m", "sweep": sweep, **more})


def swept(sweep: Mapping[str, Any], table: Path | None = None, **columns: str) -> Swept:
    opened = open_table(str(table)) if table else None
    settings: Any = {"kinds": KINDS, "others": (), "columns": columns, "storage_options": {}}
    return open_sweep(job_of(sweep).sweep, opened, **settings)


def rows(sweep: Mapping[str, Any], table: Path | None = None, **columns: str) -> list[dict[str, Any]]:
    return [row for _, batch in swept(sweep, table, **columns).batches(7) for row in batch.to_pylist()]


def values(written: Any, name: str) -> list[Any]:
    return [row[name] for row in rows({name: written})]


def test_what_a_sweep_makes_has_no_cells_of_a_table(tmp_path: Path) -> None:
    (table := tmp_path / "t.csv").write_text("style\noil\n")
    assert swept({"prompt": ["a fox, {style}"], "seed": "0-1"}, table).swept == {"seed"}
    assert swept({"prompt": ["a {word} fox"], "word": ["red"]}).swept == {"prompt", "word"}


def test_rows_are_counted_as_people_say_it_and_not_made() -> None:
    sweep = swept({"prompt": ["a", "b", "c"], "seed": "0-19", "guidance_scale": [1, 2.5, 4, 7]})
    assert str(sweep) == "3 prompts x 20 seeds x 4 guidance scales = 240 rows"
    first, batch = next(swept({"prompt": ["a"] * 10, "seed": "0-9999999"}).batches())
    assert (first, batch.num_rows) == (0, 1024)


STEPS = "num_inference_steps"


@pytest.mark.parametrize(
    ("name", "written", "found"),
    [
        ("guidance_scale", [1, 2.5], [1.0, 2.5]),
        ("guidance_scale", 4, [4]),
        ("guidance_scale", "1-3", [1, 2, 3]),
        ("guidance_scale", {"from": 1, "to": 2, "step": 0.5}, [1.0, 1.5, 2.0]),
        ("guidance_scale", {"from": 0.1, "to": 0.3, "step": 0.1}, [0.1, 0.2, 0.3]),
        ("guidance_scale", {"from": 3, "to": 1}, [3, 2, 1]),
        ("guidance_scale", {"from": 1, "to": 2, "step": 0.4}, [1.0, 1.4, 1.8]),
        ("guidance_scale", {"from": 1, "to": 7, "num": 3}, [1.0, 4.0, 7.0]),
        ("guidance_scale", {"from": 1, "to": 100, "num": 3, "scale": "log"}, [1.0, 10.0, 100.0]),
        ("guidance_scale", ["1.0(0-0.5),5", 2], ["1.0(0-0.5),5", "2"]),  # a schedule makes texts of all
        (STEPS, "8-64:8", [8, 16, 24, 32, 40, 48, 56, 64]),
        (STEPS, ["0-2", 7, "10-11"], [0, 1, 2, 7, 10, 11]),
        (STEPS, {"from": 4, "to": 64, "num": 5, "scale": "log"}, [4, 8, 16, 32, 64]),
        (STEPS, {"from": 1, "to": 4, "num": 9}, [1, 2, 3, 4]),
        ("seed", {"from": 2**53 + 1, "to": 2**53 + 1, "num": 1}, [2**53 + 1]),
        ("seed", {"from": 0, "to": 2**53 + 1, "num": 3}, [0, 2**52 + 1, 2**53 + 1]),
        ("seed", {"from": 9, "to": 0, "num": 4}, [9, 6, 3, 0]),
        (STEPS, {"from": 1.0, "to": 2.0}, [1, 2]),
        ("negative_prompt", [None, "blurry"], [None, "blurry"]),  # null is the job's default
        ("sigmas", [[1, 0.5]], ["[1,0.5]"]),
        *(("prompt", text, [text]) for text in ('{"a": {"b": 1}}', "{}", "{ color }", "{0}")),
        ("prompt", "a {{color}}", ["a {color}"]),
    ],
)
def test_what_is_written_stands_for_values(name: str, written: Any, found: list[Any]) -> None:
    """Ranges hold both of their ends, and whole numbers stay whole."""
    assert values(written, name) == found


def test_words_of_a_template_are_crossed_and_kept() -> None:
    found = rows({"prompt": "a {color} {shape}", "color": ["red", "blue"], "shape": ["ring"]})
    colors = ("red", "blue")
    assert found == [{"prompt": f"a {color} ring", "color": color, "shape": "ring"} for color in colors]


@pytest.mark.parametrize("written", [[7, 8], [1.5, 2.0], ["True", "1e3"], {"from": 0, "to": 1, "step": 0.5}])
def test_words_whose_spelling_is_certain_are_filled_in(written: Any) -> None:
    texts = [str(value) for value in (written if isinstance(written, list) else [0.0, 0.5, 1.0])]
    found = rows({"prompt": "a {x}", "x": written})
    assert [row["prompt"] for row in found] == [f"a {text}" for text in texts]


def test_places_of_several_images_are_filled_in_too() -> None:
    found = rows({"prompt": "a", "images": "p/{name}.png", "name": ["x", "y"]})
    assert [row["images"] for row in found] == ["p/x.png", "p/y.png"]


def test_lines_of_a_text_file_are_values(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbfa fox\r\n\r\n  a cat, two\n")
    assert values({"file": str(tmp_path / "p.txt")}, "prompt") == ["a fox", "a cat, two"]
    (tmp_path / "p.txt").write_text("a\u2028b\x85c\fd\r\ne\rf\n", encoding="utf-8", newline="")
    assert values({"file": str(tmp_path / "p.txt")}, "prompt") == ["a\u2028b\x85c\fd", "e", "f"]


def test_each_row_of_a_table_takes_each_combination(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt,tag\na,1\nb,2\n")
    found = [tuple(row.values()) for row in rows({"seed": "0-2"}, tmp_path / "t.csv")]
    assert found == [(prompt, tag, seed) for prompt, tag in (("a", 1), ("b", 2)) for seed in range(3)]
    assert str(swept({"seed": "0-2"}, tmp_path / "t.csv")) == "2 rows x 3 seeds = 6 rows"
    once = {"num_inference_steps": [4], "seed": "0-1"}
    assert str(swept(once, tmp_path / "t.csv")) == "2 rows x 1 inference step x 2 seeds = 4 rows"


def test_a_template_uses_what_the_table_has_and_its_column_is_that_of_the_job(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt,place\na fox,\na cat,home\n")
    sweep = {"prompt": "{prompt} at {place}, {style}", "style": ["ink"]}
    found = [row["prompt"] for row in rows(sweep, tmp_path / "t.csv")]
    assert found == [None, "a cat at home, ink"]  # what is null stays null
    (tmp_path / "t.csv").write_text("caption\na fox\n")
    assert rows({"prompt": "{caption}!"}, tmp_path / "t.csv", prompt="caption") == [{"caption": "a fox!"}]


def test_a_table_cell_that_is_no_text_fills_nothing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("place\ncafé\nhome\n".encode("latin-1"))
    batches = swept({"prompt": "a fox at {place}"}, tmp_path / "t.csv").batches()
    assert [row for _, batch in batches for row in batch["prompt"].to_pylist()] == [None, "a fox at home"]


def drawn(num: int, method: str = "sobol", seed: int = 0) -> list[dict[str, Any]]:
    over = {
        "guidance_scale": {"from": 1, "to": 8},
        "num_inference_steps": {"from": 4, "to": 50},
        "prompt": ["a", "b"],
    }
    return rows({"sample": {"num": num, "method": method, "seed": seed, "over": over}})


@pytest.mark.parametrize("method", ["sobol", "random"])
def test_what_is_drawn_is_the_same_at_every_run_and_grows_at_its_end(method: str) -> None:
    first = drawn(8, method)
    assert first == drawn(20, method)[:8]
    assert first != drawn(8, method, seed=1)
    assert all(1 <= row["guidance_scale"] <= 8 and 4 <= row["num_inference_steps"] <= 50 for row in first)


def test_sobol_samples_are_spread_evenly_and_those_of_every_version() -> None:
    found = drawn(16)
    assert [row["prompt"] for row in found].count("a") == 8
    assert sorted(int((row["guidance_scale"] - 1) / 7 * 16) for row in found) == [*range(16)]
    assert found[0] == {"guidance_scale": 3.86965, "num_inference_steps": 49, "prompt": "b"}
    assert drawn(1, "random")[0] == {"guidance_scale": 5.45873, "num_inference_steps": 16, "prompt": "a"}


REFUSED: list[tuple[Mapping[str, Any], str, str]] = [
    ({"guidence_scale": [1, 2]}, "no such argument", "did you mean 'guidance_scale'?"),
    ({"prompt": "a {colour}", "color": ["red"]}, "uses {colour}", "did you mean {color}?"),
    ({"prompt": "a {color}", "seed": "0-3"}, "uses {color}", "sweep: {color: [...]}"),
    ({"prompt": "a {color}"}, "uses {color}", "sweep: {color: [...]}"),
    (
        {"prompt": "a {x}", "x": ["red {seed}"], "seed": "0-1"},
        "sweep.x uses {seed}, but is itself",
        "write {seed}",
    ),
    ({"prompt": "a {color", "color": ["red"]}, "sweep.prompt has {color without", "write {color}"),
    ({"prompt": "a {x}", "x": [True, False]}, "sweep.x has true", 'earlier versions wrote "True"'),
    ({"prompt": "a {x}", "x": ["dim", False]}, "sweep.x has false", "yes, no, true and false in quotes"),
    ({"prompt": "a {x}", "x": [1e3]}, "sweep.x has 1000.0", "such numbers in quotes"),
    ({"prompt": "a {x}", "x": [2.5, 1]}, "sweep.x has 1, which", 'earlier versions wrote "1.0"'),
    ({"prompt": "a {x}", "sample": {"num": 1, "over": {"x": [700.0]}}}, "over.x has 700.0", "in quotes"),
    ({"seed": []}, "`sweep.seed` is []", "not empty"),
    ({"seed": "0-999999999999"}, "1,000,000,000,000 seeds", "use fewer values"),
    ({"seed": {"from": 0, "to": 2**70}}, "64 bits", "smaller"),
    ({"seed": [2**70]}, "64 bits", "smaller"),
    ({"seed": {"from": 0, "to": 10, "step": 2**63}}, "64 bits", "smaller"),
    ({"seed": {"from": 10, "to": 0, "step": 10**25}}, "64 bits", "smaller"),
    ({"seed": f"0-10:{10**19 - 1}"}, "64 bits", "smaller"),
    ({"seed": {"from": 0, "to": 10**400}}, "1000", "fewer than 300 digits"),
    ({"seed": {"from": 0, "to": 1.5}}, "has 1.5", "whole numbers"),
    ({"guidance_scale": {"from": 1, "to": 7, "step": 0}}, "guidance_scale.step` is 0", "above 0"),
    ({"guidance_scale": {"from": 1, "to": 7, "stepp": 1}}, "stepp", "`sweep.guidance_scale.step`"),
    ({"guidance_scale": {"from": 1}}, "{'from': 1}", "both ends"),
    ({"guidance_scale": {"from": 1, "to": 9, "scale": "log"}}, "no num", "num: 8"),
    ({"guidance_scale": {"from": 0, "to": 9, "num": 3, "scale": "log"}}, "'from': 0", "above 0"),
    ({"guidance_scale": {"from": 1, "to": 9, "num": 3, "step": 1}}, "step", "not both"),
    ({"guidance_scale": {"from": 0, "to": 1, "step": 1e-9}}, "1,000,000,001 numbers", "larger step"),
    ({"guidance_scale": [1], "file": "x"}, "no such argument", "use one of"),
    ({"prompt": [1]}, "has 1, which is not a text", "quotes"),
    ({"prompt": {"file": "absent.txt"}}, "absent.txt, which cannot be read: No such file", "path"),
    ({"prompt": {"file": "prompts.csv"}}, "not a .txt file", "`table:`"),
    ({"prompt": "@prompts.csv"}, "not a .txt file", "`table:`"),
    ({"sample": {"num": 2, "over": {"prompt": "@no prompts.txt"}}}, "no prompts.txt, which", "path"),
    ({"prompt": ["a"], "sample": {"num": 2, "over": {"prompt": ["b"]}}}, "sample", "prompt once"),
    ({"sample": {"num": 0, "over": {"seed": "0-3"}}}, "`sweep.sample.num` is 0", "a number"),
    ({"sample": {"over": {"seed": "0-3"}}}, "no `sweep.sample.num`", "write"),
]


@pytest.mark.parametrize(("sweep", "problem", "fix"), REFUSED)
def test_what_cannot_be_swept_is_told_with_its_fix(sweep: Mapping[str, Any], problem: str, fix: str) -> None:
    with pytest.raises(JobError) as caught:
        swept(sweep)
    assert problem in caught.value.problem
    assert fix in caught.value.fix


@pytest.mark.parametrize("prompt", [["x", "y"], "{caption}!"])
def test_a_placeholder_named_like_the_column_of_an_argument_is_refused(prompt: Any) -> None:
    sweep = {"prompt": prompt, "caption": ["a", "b"], "negative_prompt": "{caption}"}
    with pytest.raises(
        JobError, match=r"sweep\.prompt and sweep\.caption are both values of the column"
    ) as caught:
        swept(sweep, prompt="caption")
    assert caught.value.fix.startswith("use another name")


def test_a_table_that_gives_the_same_or_makes_too_many_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt,seed\na,1\n")
    with pytest.raises(JobError, match=r"sweep\.seed: the table also has a column"):
        swept({"seed": "0-3"}, tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("prompt\na\nb\n")
    with pytest.raises(JobError, match="2 rows x 100,000,000 seeds = 200,000,000 rows"):
        swept({"seed": "0-99999999"}, tmp_path / "t.csv")


def test_a_sweep_is_written_as_it_was_read() -> None:
    sweep = {"prompt": ["a"], "seed": ["0-3"], "guidance_scale": {"from": 1, "to": 9, "step": 2}}
    said = job_of(sweep).model_dump()["sweep"]
    assert said == {"sample": None, "wildcards": None, **sweep}
    assert job_of(said) == job_of(sweep)
    with pytest.raises(JobError, match="not name=values"):
        option_sets(sweeps=["guidance_scale"])


@pytest.mark.parametrize("name", ["prompts.txt", "my prompts.TXT"])
def test_a_name_behind_an_at_sign_is_a_file_unless_it_is_in_a_list(name: str) -> None:
    assert job_of({"prompt": f"@{name}"}) == job_of({"prompt": {"file": name}})
    assert job_of({"prompt": [f"@{name}"]}).model_dump()["sweep"]["prompt"] == [f"@{name}"]
    assert job_of({"prompt": "@home, a cat"}).model_dump()["sweep"]["prompt"] == ["@home, a cat"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"prompts": ["a, b: {c}", "一只猫 🦊"]}, {"prompt": ["a, b: {c}", "一只猫 🦊"]}),
        ({"seeds": "0-63"}, {"seed": ["0-63"]}),
        ({"seeds": "1,5,9"}, {"seed": [1, 5, 9]}),
        ({"sweeps": ["guidance_scale=1,2.5"]}, {"guidance_scale": [1, 2.5]}),
        ({"sweeps": ["scheduler=ddim,euler"]}, {"scheduler": ["ddim", "euler"]}),
        ({"sweeps": ["prompt=@my prompts.txt"]}, {"prompt": {"file": "my prompts.txt"}}),
        ({"sweeps": ["eta={from: 0, to: 1, step: 0.5}"]}, {"eta": {"from": 0, "to": 1, "step": 0.5}}),
        ({"sweeps": ["sample.num=4", "sample.over.eta=[1]"]}, {"sample": {"num": 4, "over": {"eta": [1]}}}),
    ],
)
def test_options_say_what_the_job_file_says(options: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    assert load_job(None, option_sets(**options), output="out", model="m") == job_of(found)


ANY_TEXT = strategies.lists(
    strategies.text(strategies.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    min_size=1,
)


@given(ANY_TEXT)
@example(["a \x7f b", "a \u2028 b", "a\u2029", "a \x85 b", "\x9f", "\ufffe\uffff", "\ufeff🦊\n\t"])
def test_whatever_stands_in_a_prompt_is_what_it_is_for_the_job(prompts: list[str]) -> None:
    value, _ = parse_yaml(yaml_of({"sweep": {"prompt": prompts}}), source="job.json")
    assert value == {"sweep": {"prompt": prompts}}
    prompts = [f"{prompt} " for prompt in prompts]  # that begins with @ names a file
    (swept,) = option_sets(prompts=[f"a {prompt}" for prompt in prompts])
    assert set_values([swept]) == {"sweep": {"prompt": [f"a {prompt}" for prompt in prompts]}}
    name = f"a {prompts[0]}b".replace("=", "")
    (swept,) = option_sets(sweeps=[f"prompt=@{name}"])
    assert set_values([swept]) == {"sweep": {"prompt": {"file": name.strip()}}}


def test_a_sweep_is_read_from_a_row_of_its_table_on(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"prompt": list("abcd")}), tmp_path / "t.parquet")
    found = [*swept({"seed": [1, 2, 3]}, tmp_path / "t.parquet").batches(3, start=7)]
    assert [first for first, _ in found] == [6, 9]
    assert [row["prompt"] for _, batch in found for row in batch.to_pylist()] == [*"cccddd"]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "prompts.txt")
    (tmp_path / "zeros.txt").symlink_to("/dev/zero")
    for name, kind in (("prompts.txt", "a pipe"), ("zeros.txt", "a device")):
        with pytest.raises(JobError, match=f"it is {kind}, not a file"):
            lines_of(str(tmp_path / name), "sweep.prompt", {})


SWEEP = {"prompt": ["a {color} ball", "a fox"], "color": ["red", "blue"], "seed": "0-2"}


def resolved(folder: Path, **more: Any) -> ResolvedJob:
    values = job_values(folder / "none", folder / "out") | {"table": None, "sweep": SWEEP, **more}
    return resolve_job(load_job(values), Callback())


def claim_in(folder: Path) -> Any:
    """Return the job of job.json."""
    return json.loads((folder / "out/job.json").read_text())["job"]


def surveyed(job: ResolvedJob, index: RowIndex) -> Survey:
    return survey_rows(job, index, Callback())


def test_an_output_tells_the_sweep_that_made_it(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a fox\n")
    more = {"negative_prompt": "no {color} {file}", "file": ["x", "y"]}  # words may be called so
    sweep = {**SWEEP, "prompt": {"file": str(tmp_path / "p.txt")}, **more}
    with closing(resolved(tmp_path, sweep=sweep)) as job:
        claim(job)
    claimed = claim_in(tmp_path)
    assert (load_job(job.job.model_dump() | {"sweep": claimed["sweep"]}).sweep, claimed["table"]) == (
        job.job.sweep,
        None,
    )


def test_a_text_file_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.txt").write_text("a fox\n")
    monkeypatch.chdir(tmp_path)
    with closing(resolved(tmp_path, sweep={"prompt": {"file": "p.txt"}})) as job:
        claim(job)
    assert claim_in(tmp_path)["sweep"]["prompt"] == {"file": str(tmp_path / "p.txt")}


SIGNED = "https://b.test/x.png?X-Amz-Signature=s3cr3t"
DRAWN = {"num": 2, "over": {"negative_prompt": [SIGNED, "b"]}}


@pytest.mark.parametrize(
    "section",
    [
        {"sweep": {**SWEEP, "color": ["red", SIGNED]}},
        {"sweep": {**SWEEP, "sample": DRAWN}},
        {"overrides": {"sigmas": [SIGNED]}},
        {"inputs": {"roots": ["/a", "s3://me:s3cr3t@bucket/x"]}},
    ],
    ids=["sweep", "sample", "overrides", "inputs"],
)
def test_what_is_secret_is_not_written_down(section: dict[str, Any], tmp_path: Path) -> None:
    with closing(resolved(tmp_path)) as job:
        claim(replace(job, job=load_job(job.job.model_dump() | section)))
    assert "s3cr3t" not in (tmp_path / "out/job.json").read_text()


@pytest.mark.parametrize(
    ("name", "written", "overrides"),
    [
        ("num_inference_steps", [2, 3], {"num_inference_steps": 4}),
        ("height", [64, 80], {"size": "64x64"}),
        ("size", ["64x64", "80x80"], {"width": 64, "height": 64}),
        ("seconds", [1, 2], {"num_frames": 5}),
    ],
)
def test_a_sweep_that_overrides_would_replace_is_refused(
    name: str, written: Any, overrides: dict[str, Any], tmp_path: Path
) -> None:
    first = next(iter(overrides))
    with pytest.raises(JobError, match=rf"sweep\.{name} would do nothing, as overrides\.{first} holds"):
        resolved(tmp_path, sweep={**SWEEP, name: written}, overrides=overrides)
    prompt = f"a ball {{{name}}}"  # then texts differ
    resolved(tmp_path, sweep={"prompt": prompt, name: written}, overrides=overrides).close()


@pytest.mark.parametrize(
    ("more", "problem", "fix"),
    [
        ({"num_inference_steps": ["a", "b"]}, "sweep.num_inference_steps has 'a'", "whole number"),
        ({"seed": ["0..63"]}, "sweep.seed has '0..63'", "write 0-63"),
        ({"seed": "0-3,7"}, "sweep.seed has '0-3,7'", "write a list: [0-3, 7]"),
        ({"height": "64-66"}, "sweep.height has 66", "64 or 80"),
        ({"scheduler": ["dimm"]}, "sweep.scheduler has 'dimm'", ""),
        ({"num_videos_per_prompt": [2]}, "no such argument", "repeat the row"),
        ({"prompt": "a {colour} ball"}, "sweep.prompt uses {colour}", ""),
    ],
)
def test_a_value_that_no_row_can_have_is_told_once(
    more: dict[str, Any], problem: str, fix: str, tmp_path: Path
) -> None:
    with pytest.raises(JobError) as caught:
        resolved(tmp_path, sweep={**SWEEP, **more})
    assert problem in caught.value.problem
    assert fix in caught.value.fix


def test_the_example_is_a_sweep_of_24_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    job = load_job(ROOT / "examples/sweep.yaml", [f"output={tmp_path / 'out'}"])
    with closing(resolve_job(job, Callback())) as found, closing(RowIndex()) as index:
        assert str(found.table) == "3 prompts x 4 seeds x 2 guidance scales = 24 rows"
        survey = surveyed(found, index)
        assert (survey.num_invalid, index.counts().pending) == (0, 24)

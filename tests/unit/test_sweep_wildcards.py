"""`{red|blue}` and `__animal__` in a sweep become rows: all combinations, or some that are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.rows.sweeps.sweep import open_sweep
from tests.unit.test_sweeps import KINDS, job_of, rows


def prompts(*texts: object, **sweep: Any) -> list[str]:
    return [row["prompt"] for row in rows({"prompt": [*texts], **sweep})]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "sea").mkdir()
    (tmp_path / "animal.txt").write_text("# those of the first set\nfox\n{old|} cat\n__sea/fish__\n")
    (tmp_path / "sea" / "fish.txt").write_text("cod\n")
    (tmp_path / "loop.txt").write_text("a __loop__\n")
    return str(tmp_path)


def test_options_are_all_rendered_the_last_ones_changing_first() -> None:
    assert prompts("a {red|blue} {fox|cat}", "rain") == [
        *("a red fox", "a red cat", "a blue fox", "a blue cat"),
        "rain",
    ]
    assert prompts("a {big {red|blue}|small} {fox|}") == [
        *("a big red fox", "a big red ", "a big blue fox", "a big blue "),
        *("a small fox", "a small "),
    ]


def test_lines_of_a_file_are_options_and_may_have_wildcards(folder: str) -> None:
    animals = ["a fox", "a old cat", "a  cat", "a cod"]
    assert prompts("a __animal__", wildcards=folder) == animals
    (Path(folder) / "prompts.txt").write_text("a __animal__\n")
    written = {"file": f"{folder}/prompts.txt"}
    assert [row["prompt"] for row in rows({"prompt": written, "wildcards": folder})] == animals


def test_templates_json_and_escaped_braces_stay_as_they_are() -> None:
    assert prompts("a {size {x}|{y}} fox {{a|b}}", x="1", y="2") == ["a size 1 fox {a|b}", "a 2 fox {a|b}"]
    texts = ['{"scene": "a|b", "size": {"w": 1}}', "{open | text", "a | b", "snake__case__x", "a } b"]
    assert prompts(*texts) == texts


def test_other_arguments_and_words_may_have_them_too() -> None:
    sweep = {"prompt": "a {thing}", "negative_prompt": "{ugly|}", "thing": "{red|blue} ring"}
    assert [(row["prompt"], row["negative_prompt"]) for row in rows(sweep)] == [
        *(("a red ring", "ugly"), ("a blue ring", "ugly")),
        *(("a red ring", ""), ("a blue ring", "")),
    ]


@pytest.mark.parametrize("text", ["{a|b} {c|d|e}", " ".join(["{a|b|c|d}"] * 40)])
def test_a_sample_draws_the_same_texts_for_a_seed_and_keeps_them_as_it_grows(text: str) -> None:
    def drawn(**sample: Any) -> list[str]:
        return [
            row["prompt"]
            for row in rows({"sample": {"over": {"prompt": text, "guidance_scale": [1]}, **sample}})
        ]

    some = drawn(num=64)
    assert some == drawn(num=64) == drawn(num=128)[:64] != drawn(num=64, seed=1)
    assert len({*some}) == (6 if len(text) < 20 else 64)
    for place in range(0, len(some[0]), 2):  # every option of every wildcard comes
        assert len({one[place] for one in some}) == len({*"abcde"} & {*text}) if len(text) > 20 else True


@pytest.mark.parametrize(
    ("sweep", "problem", "fix"),
    [
        ({"prompt": "a __cow__"}, "sweep.prompt has __cow__, and sweep.wildcards is not set", "cow.txt"),
        ({"prompt": "__cow__", "wildcards": "FOLDER"}, "sweep.prompt: __cow__ is FOLDER/cow.txt", "path"),
        ({"prompt": "__loop__", "wildcards": "FOLDER"}, "file of __loop__ leads back", "leave"),
        ({"prompt": "{2$$a|b}"}, "sweep.prompt has '2$$'", "several times"),
        ({"prompt": "{0.5::a|b}"}, "sweep.prompt has '0.5::'", "several times"),
        ({"prompt": ["{a|b}", None]}, "and None, which is not a text", "leave"),
        ({"prompt": "{" * 40 + "a|b"}, "braces in 32 others", "fewer"),
        ({"prompt": "{a|b}" * 21}, "sweep.prompt stands for 2,097,152 texts", "sample"),
    ],
)
def test_what_cannot_be_used_is_refused(sweep: dict[str, Any], problem: str, fix: str, folder: str) -> None:
    sweep = {name: folder if value == "FOLDER" else value for name, value in sweep.items()}
    with pytest.raises(JobError) as refused:
        open_sweep(job_of(sweep).sweep, None, kinds=KINDS, others=(), columns={}, storage_options={})
    assert problem.replace("FOLDER", folder) in refused.value.problem
    assert fix in refused.value.fix

"""`{red|blue}` and `__animal__` become rows in a sweep, and are reported where a model reads them as text."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from framefleet.jobs.render.wildcards import Wildcards
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
    texts = [
        '{"scene": "a|b", "size": {"w": 1}}',
        "{open text",
        "a | b",
        "a } b",
        "snake__case",
        "a -- b ___",
    ]
    assert prompts(*texts) == texts


@pytest.mark.parametrize(
    ("text", "first", "num"),
    [
        ("a herd of __sea/fish__s", "a herd of cods", 1),
        ("一只__sea/fish__在雪中", "一只cod在雪中", 1),
        ("a __3d-style__", "a low poly", 2),
        ("__hair color__ hair", "red hair", 2),
        ("__颜色__色", "红色", 2),
        ("__p+2.1____3d-style__", "onelow poly", 4),
        ("___3d-style___", "_low poly_", 2),
        ('{"scene": "__3d-style__ {a|{b|c}}", "w": {"h": 1}}', '{"scene": "low poly a", "w": {"h": 1}}', 6),
        ('{"STOP"|"GO"} sign', '"STOP" sign', 2),
    ],
)
def test_a_wildcard_is_read_whatever_its_name_and_neighbours(
    text: str, first: str, num: int, folder: str
) -> None:
    names = {"3d-style": "low poly\nclay", "hair color": "red\nblue", "颜色": "红\n蓝", "p+2.1": "one\ntwo"}
    for name, words in names.items():
        (Path(folder) / f"{name}.txt").write_text(words, "utf-8")
    texts = prompts(text, wildcards=folder)
    assert (texts[0], len(texts)) == (first, num)


UNREAD = {
    "names": "__*__ __sea/**__ __sea/[fg]ish__ __Animal__ __~animal__ __@animal__ __animal(a=b)__",
    "places": "__../FOLDER/animal__ __memory://animal__ __x::memory://animal__ {2$$__animal__} 3#__animal__",
    "halves": "__animal_ __animal __{animal|sea/fish}__ {red|blue {a|{b|c} ${a={b|c}} ${a:b} {~a|b} {@a|b}",
    "weights": "__weights__ {red|-.5::blue} {-2$$a|b} {0::red} {::a|b} {70%::a|b} {1e3::a|b} {0.5::2$$a|b}",
    "json": '{"a":{b|c}} {"a":"__{b|c}__"}',
}
SPACED = ["__ animal __", "{ 3::2 :: red|blue}", "{2$$ and $$a|b}", '--prompt "a fox" --steps 20']
SPACED += ["a fox --ar 16:9 --v 6", "Negative prompt: blurry", "Steps: 20, Seed: 1"]


@pytest.mark.parametrize("text", [text for some in UNREAD.values() for text in some.split()] + SPACED)
def test_what_looks_like_a_wildcard_and_is_not_read_is_refused(text: str, folder: str) -> None:
    text = text.replace("FOLDER", Path(folder).name)
    (Path(folder) / "weights.txt").write_text("3::0.5::red\nblue\n")
    (Path(folder) / "prompts.txt").write_text(f"a fox\n{text}\n")
    for written in (text, {"file": f"{folder}/prompts.txt"}):
        with pytest.raises(JobError, match=r"sweep\.prompt"):
            prompts(written, wildcards=folder)


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


WEIGHTED = {
    "{0.7::a|0.3::b}": {"a": 70, "b": 30},
    "{ 3 :: red|blue} {x|{2::y|0::z}}": {"red x": 37.5, "red y": 37.5, "blue x": 12.5, "blue y": 12.5},
    "{3::red} __animal__": {"red fox": 60, "red cat": 40},
}


@pytest.mark.parametrize("text", WEIGHTED)
@pytest.mark.parametrize("method", ["sobol", "random"])
def test_weights_say_how_often_a_sample_draws_an_option(text: str, method: str, folder: str) -> None:
    (Path(folder) / "animal.txt").write_text("1.5::fox\n# none\n0::cow\ncat\n")
    over = {"prompt": text, "guidance_scale": {"values": [1, 5, 9], "weights": [1, 0, 3]}}
    sweep = {"wildcards": folder, "sample": {"num": 2048, "method": method, "over": over}}
    drawn = rows(sweep)
    assert drawn == rows(sweep), "the same rows each time"
    percent = {text: round(num / 20.48, 1) for text, num in Counter(row["prompt"] for row in drawn).items()}
    assert percent == pytest.approx(WEIGHTED[text], abs=3)
    scales = Counter(row["guidance_scale"] for row in drawn)
    assert {*scales} == {1, 9} and scales[9] == pytest.approx(1536, abs=50)


def test_without_a_sample_each_option_and_value_is_rendered_once_and_the_sweep_says_so() -> None:
    job = {"prompt": "{0.7::a|b|0::c}", "guidance_scale": {"values": [1, 5, 9], "weights": [1, 0, 3]}}
    assert [(row["prompt"], row["guidance_scale"]) for row in rows(job)] == [
        *(("a", 1), ("a", 9), ("b", 1), ("b", 9)),
    ]
    swept = open_sweep(job_of(job).sweep, None, kinds=KINDS, others=(), columns={}, storage_options={})
    assert "2 prompts (each once: weights count below sweep.sample.over)" in str(swept)
    for wrong in ({"values": [1], "weights": [1, 2]}, {"from": 1, "to": 2, "weights": [1, 1]}):
        with pytest.raises(JobError, match="as many weights as values"):
            job_of({"guidance_scale": wrong})


@pytest.mark.parametrize(
    ("sweep", "problem", "fix"),
    [
        ({"prompt": "a __cow__"}, "sweep.prompt has __cow__, and sweep.wildcards is not set", "cow.txt"),
        ({"prompt": "__cow__", "wildcards": "FOLDER"}, "sweep.prompt: __cow__ is FOLDER/cow.txt", "path"),
        ({"prompt": "__loop__", "wildcards": "FOLDER"}, "file of __loop__ refers to itself", "remove"),
        ({"prompt": "{2$$a|b}"}, "sweep.prompt has '2$$'", "several times"),
        ({"prompt": "{0::a|0.0::b}"}, "sweep.prompt: all weights in", "above 0"),
        ({"prompt": ["{a|b}", None]}, "and None, which is not a text", "leave"),
        ({"prompt": "{" * 40 + "a|b" + "}" * 40}, "braces in 32 others", "fewer"),
        ({"prompt": "{a|b}" * 21}, "sweep.prompt stands for 2,097,152 texts", "sample"),
        ({"prompt": "{a|b}" * 15_000}, "sweep.prompt stands for more than 10^100 texts", "sample"),
    ],
)
def test_what_cannot_be_used_is_refused(sweep: dict[str, Any], problem: str, fix: str, folder: str) -> None:
    sweep = {name: folder if value == "FOLDER" else value for name, value in sweep.items()}
    with pytest.raises(JobError) as refused:
        open_sweep(job_of(sweep).sweep, None, kinds=KINDS, others=(), columns={}, storage_options={})
    assert problem.replace("FOLDER", folder) in refused.value.problem
    assert fix in refused.value.fix


def test_wildcards_are_counted_and_the_first_is_named() -> None:
    prompts = ["a fox", None, "a {red|blue} fox", "two __3d animal__s", "snake_case_x {a} ____"]
    found = Wildcards(["prompt"])
    found.add(0, pa.RecordBatch.from_pydict({"prompt": prompts[:2], "note": ["{a|b}"] * 2}))
    assert found.note() is None
    found.add(2, pa.RecordBatch.from_pydict({"prompt": prompts[2:]}))
    note = found.note()
    assert note and "2 rows" in note and "row 2 first" in note and "`sweep:`" in note


def test_texts_of_a_sweep_have_no_wildcards_left_but_maybe_loras() -> None:
    found = Wildcards(["prompt"], swept=["prompt"])
    for number, prompt, note in ((0, "a {red|blue} fox", ""), (1, "a <lora:style:0.8> fox", "1 row ")):
        found.add(number, pa.RecordBatch.from_pydict({"prompt": [prompt]}))
        assert note in (found.note() or "") and bool(found.note()) == bool(note)

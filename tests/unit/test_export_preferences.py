"""Pairs of a better and a worse clip, as those who train with preferences read them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import framefleet
from framefleet import JobError, Store
from tests.commands import command
from tests.small_output import rendered

PROMPTS = ["a cat", "a dog", "a cat", "a dog", "a cat", "a bird", "a cat"]
CARRIED = {
    "prompt": PROMPTS,
    "sharp": [0.1, 0.2, 0.3, 0.2, 0.5, 0.9, None],
    "is_good": [True, True, False, None, True, False, None],
    "style": ["oil"] * 7,
}


def loaded(tmp_path: Path, **options: Any) -> list[dict[str, Any]]:
    import datasets

    dataset = datasets.load_dataset(str(tmp_path / "to"), cache_dir=str(tmp_path / "cache"), **options)
    for side in ("chosen", "rejected"):  # decoding videos wants torchcodec
        dataset = dataset.cast_column(side, type(dataset.features[side])(decode=False))
    return dataset.to_list()


def numbers(records: list[dict[str, Any]], pairs: list[dict[str, Any]]) -> list[tuple[int, int]]:
    rows = [record["row_id"] for record in records]
    return [(rows.index(pair["chosen_row_id"]), rows.index(pair["rejected_row_id"])) for pair in pairs]


def stars(out: Path, records: list[dict[str, Any]], given: dict[int, int]) -> None:
    lines = [{"row_id": records[row]["row_id"], "stars": number} for row, number in given.items()]
    Path(out, "stars.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.mark.parametrize(
    ("options", "pairs"),
    [
        (["--by", "sharp"], [(4, 0), (4, 2), (2, 0)]),  # rows 1 and 3 are equal, and row 6 has no score
        (["--by", "sharp", "--margin", "0.3"], [(4, 0)]),
        (["--by", "sharp", "--margin", "0.2"], [(4, 0), (4, 2), (2, 0)]),  # 0.3 - 0.1 is a little less
        (["--by", "sharp", "--max-pairs", "2"], [(4, 0), (4, 2)]),
        (["--by", "is_good"], [(0, 2), (4, 2)]),
        ([], [(0, 4)]),  # of those with stars
        (["--by", "stars", "--where", "sharp < 0.5"], []),
        (["--by", "picks"], [(0, 6), (0, 2), (4, 6), (4, 2)]),
    ],
)
def test_clips_of_a_prompt_are_paired_by_what_rates_them(
    options: list[str], pairs: list[tuple[int, int]], tmp_path: Path
) -> None:
    records = rendered(Store(str(tmp_path / "out")), carried=CARRIED)
    stars(tmp_path / "out", records, {0: 5, 4: 2, 5: 4, 2: 0})
    result = command("export", tmp_path / "out", tmp_path / "to", "--format", "preferences", *options)
    if not pairs:
        assert (result.exit_code, "no two clips of a prompt differ in stars" in result.stderr) == (2, True)
        return
    assert result.exit_code == 0, result.output
    assert f"{len(pairs)} pair" in result.stderr
    assert (tmp_path / "to" / "README.md").read_text().startswith("---\nlicense: unknown\n")
    (described,) = json.loads((tmp_path / "to" / "croissant.jsonld").read_text())["recordSet"]
    assert {"chosen_file_name", "rejected_rating"} < {field["name"] for field in described["field"]}
    rows = loaded(tmp_path, split="train")
    assert numbers(records, rows) == pairs
    for row, (chosen, rejected) in zip(rows, pairs, strict=True):
        assert row["prompt"] == row["caption"] == PROMPTS[chosen]
        # The columns of a set of preferences, and no others that TRL knows: data_utils.apply_chat_template.
        trls = {"prompt", "chosen", "rejected", "completion", "messages", "label"}
        assert {*row} & trls == {"prompt", "chosen", "rejected"}
        for side, number in (("chosen", chosen), ("rejected", rejected)):
            clip = Path(row[side]["path"]).read_bytes()
            assert clip == (tmp_path / "out" / records[number]["path"]).read_bytes()


def test_pictures_are_also_in_the_columns_that_diffusers_reads(tmp_path: Path) -> None:
    records = rendered(Store(str(tmp_path / "out")), carried=CARRIED, format="png")
    to = tmp_path / "to"
    framefleet.export(str(tmp_path / "out"), str(to), format="preferences", by="sharp", caption="{style}")
    rows = loaded(tmp_path, split="train")
    # As the script opens them: the first is the better one unless label_0 is 0.
    pictures = [
        [Image.open(io.BytesIO(row[f"jpg_{side}"])).convert("RGB") for side in (0, 1)] for row in rows
    ]
    colours = [[picture.getpixel((9, 9))[0] // 8 for picture in pair] for pair in pictures]
    assert [tuple(pair) for pair in colours] == numbers(records, rows)
    assert {(row["label_0"], row["label_1"], row["caption"]) for row in rows} == {(1.0, 0.0, "oil")}


def test_what_clips_begin_with_is_the_same_in_a_pair_and_prompts_are_in_one_split(tmp_path: Path) -> None:
    images = [{"uri": f"{number}.png", "sha256": "ab"[number > 3] * 64} for number in range(7)]
    records = rendered(
        Store(str(tmp_path / "out")),
        carried={"sharp": [*range(7)], "prompt": ["a cat"] * 7},
        arguments={"image": images},
    )
    asked: dict[str, Any] = {"format": "preferences", "by": "sharp", "validation": 0.5}
    framefleet.export(str(tmp_path / "out"), str(tmp_path / "to"), **asked)
    (split,) = (path.name for path in (tmp_path / "to/data").iterdir())
    pairs = numbers(records, loaded(tmp_path, split=split))
    assert len(pairs) == 6 + 3
    assert all((chosen > 3) == (rejected > 3) for chosen, rejected in pairs)


def test_pairs_of_a_damaged_clip_are_left_out_until_it_is_back(tmp_path: Path) -> None:
    records = rendered(Store(str(tmp_path / "out")), carried=CARRIED)
    clip = tmp_path / "out" / records[2]["path"]
    content = clip.read_bytes()
    clip.unlink()
    asked = ("export", tmp_path / "out", tmp_path / "to", "--format", "preferences", "--by", "sharp")
    assert command(*asked).exit_code == 1
    assert numbers(records, loaded(tmp_path, split="train")) == [(4, 0)]
    clip.write_bytes(content)
    assert command(*asked).exit_code == 0
    assert numbers(records, loaded(tmp_path, split="train")) == [(4, 0), (4, 2), (2, 0)]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "has stars"),
        ({"by": "picks"}, "has stars"),
        ({"by": "sharpe"}, "no column 'sharpe'"),
        ({"by": "style"}, "contains string, not numbers"),
        ({"by": "seed", "margin": 9}, "no two clips of a prompt differ in seed by 9"),
        ({"by": "sharp", "margin": -1}, "margin is -1"),
        ({"by": "sharp", "max_pairs": 0}, "max_pairs"),
        ({"by": "sharp", "columns": ["seed"]}, "columns is set"),
        ({"by": "sharp", "format": "parquet"}, "by is set, but format is parquet"),
    ],
)
def test_what_makes_no_pairs_is_told(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    rendered(Store(str(tmp_path / "out")), carried=CARRIED)
    with pytest.raises(JobError, match=problem):
        framefleet.export(str(tmp_path / "out"), str(tmp_path / "to"), **{"format": "preferences", **options})
    assert not (tmp_path / "to").exists()

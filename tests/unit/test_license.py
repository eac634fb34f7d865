"""A model's license comes from the job, its card or its preset, and unusual terms are said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from framefleet.pipeline.model.families.registry import PRESETS
from framefleet.pipeline.model.license import License, license_of
from framefleet.pipeline.model.sources.folder_source import FolderSource
from framefleet.plugins.forecast.license_terms import license_line, terms_of

WAN = next(preset for preset in PRESETS if preset.name == "wan2.1-t2v-1.3b")
# As the cards of these models have it: https://huggingface.co/NAME/raw/main/README.md
CARDS = {
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": ("license: apache-2.0", ""),
    "MiniMaxAI/MiniMax-H3": ("license: other\nlicense_name: minimax-h3-community", "not for use, outputs"),
    "tencent/HunyuanVideo": ("license: other\nlicense_name: tencent-hunyuan-community", "does not apply in"),
    "stabilityai/stable-diffusion-xl-base-1.0": ("license: openrail++", "attachment A"),
    "stabilityai/sdxl-turbo": ("license: other\nlicense_name: sai-nc-community", "no commercial use"),
}


def model(folder: Path, card: str | None) -> FolderSource:
    (folder / "model_index.json").write_text("{}")
    if card is not None:
        (folder / "README.md").write_text(card)
    return FolderSource(str(folder))


@pytest.mark.parametrize("name", CARDS)
def test_what_a_card_says_and_what_plan_prints(name: str, tmp_path: Path) -> None:
    head, unusual = CARDS[name]
    found = license_of(
        model(tmp_path, f"---\nlanguage: en\n{head}\ntags:\n- video\n---\n# A model\n"), None, None
    )
    assert (found.source, found.name) == ("card", head.rpartition(": ")[2])
    terms = terms_of(found.name)
    assert terms is not None
    assert unusual in license_line(found)
    assert bool(unusual) is bool(terms.unusual())


def test_the_job_counts_before_the_card_and_the_card_before_the_preset(tmp_path: Path) -> None:
    source = model(tmp_path, "---\nlicense: mit\n---\n")
    assert license_of(source, WAN, "my own") == License(name="my own", source="job")
    assert license_of(source, WAN, None) == License(name="mit", source="card")
    (tmp_path / "README.md").unlink()
    assert license_of(model(tmp_path, None), WAN, None) == License(name="apache-2.0", source="preset")


@pytest.mark.parametrize(
    "card",
    [
        *(None, "", "# no metadata\nlicense: mit", "---\ntags: [a]\n---\n"),
        *("---\nlicense: other\n---\n", "---\nlicense: mit"),
    ],
)
def test_what_nobody_says_is_unknown(card: str | None, tmp_path: Path) -> None:
    found = license_of(model(tmp_path, card), None, None)
    assert (found.name, found.source, terms_of(found.name)) == ("unknown", "unknown", None)
    assert "set `model.license`" in license_line(found)
    usual = license_of(model(tmp_path, card), None, None, usual="minimax-h3")
    assert (usual.name, usual.source) == ("unknown", "unknown"), "what is usual is not recorded"
    published = "weights published for its class are licensed under minimax-h3: not for use, outputs"
    assert published in license_line(usual)


def test_a_hostile_card_gives_one_short_line(tmp_path: Path) -> None:
    card = f"---\nlicense: {'x' * 10_000}\nlicense_name: &a [*a, *a]\n---\n" + "y" * 200_000
    found = license_of(model(tmp_path, card), None, None)
    assert len(found.name) <= 80
    assert "not listed here" in license_line(found)
    control = model(tmp_path, "---\nlicense: a\x1b[31mb\n---\n")
    assert license_of(control, None, None).source == "unknown"

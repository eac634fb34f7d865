"""Similarity by a tiny CLIP of random weights: the cosine that transformers gives, of what was hashed."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from framefleet.pipeline.errors import ModelError, UserError
from framefleet.pipeline.outputs.columns import measure
from framefleet.plugins.scores.clip_scores import open_scores
from framefleet.plugins.scores.section import ScoresSection, SimilaritySection
from framefleet.plugins.scores.similarity import open_similarity
from tests.model_files import flip_a_byte
from tests.tinies.encoders import clip_tokenizer, image_processor

FRAMES = np.random.default_rng(2).integers(0, 256, (3, 20, 30, 3), np.uint8)
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("clip")
    tokenizer = clip_tokenizer()
    ends = len(tokenizer) - 1
    text = SIZES | {"vocab_size": len(tokenizer), "eos_token_id": ends, "bos_token_id": ends - 1}
    vision = SIZES | {"image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(place)
    tokenizer.save_pretrained(place)
    image_processor(image_size=16).save_pretrained(place)
    return place


def test_similarity_is_the_mean_cosine_of_clip(folder: Path) -> None:
    (score,) = open_scores(ScoresSection([SimilaritySection(similarity=str(folder))]))
    found = measure([score], FRAMES, {"prompt": "a red ball"})
    model = CLIPModel.from_pretrained(folder).eval()
    pixels = image_processor(image_size=16)(images=[Image.fromarray(f) for f in FRAMES], return_tensors="pt")
    text = clip_tokenizer()(["a red ball"], return_tensors="pt")
    with torch.no_grad():
        expected = model(**text, **pixels).logits_per_text.mean() / model.logit_scale.exp()
    assert not found.errors
    assert found.values["similarity"] == pytest.approx(float(expected), abs=1e-5)


def test_a_row_without_a_prompt_has_none_and_a_long_one_is_cut(folder: Path) -> None:
    (score,) = open_scores(ScoresSection([SimilaritySection(similarity=str(folder))]))
    assert measure([score], FRAMES, {}).values == {"similarity": None}
    assert not measure([score], FRAMES, {"prompt": "a red ball " * 5000}).errors


def test_other_files_than_were_hashed_are_not_loaded(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "clip")
    (score,) = pickle.loads(
        pickle.dumps(open_scores(ScoresSection([SimilaritySection(similarity=str(copy))])))
    )
    flip_a_byte(copy / "model.safetensors")
    scored = measure([score], FRAMES, {"prompt": "a"})
    assert "is corrupted or a different file" in scored.errors["similarity"]


def test_what_is_no_clip_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    def refused(match: str) -> None:
        with pytest.raises(UserError, match=match):
            open_similarity(str(tmp_path))

    refused(r"has no config\.json")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    refused("type 'bert'")
    shutil.copy(folder / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    refused(r"has no model\.safetensors")
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-8])
    refused("its header says")


@pytest.mark.parametrize(
    "leads", [{"attn_implementation": "somebody/kernels"}, {"quantization_config": {"quant_method": "gptq"}}]
)
def test_a_config_that_leads_to_code_is_refused(folder: Path, tmp_path: Path, leads: dict[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"] |= leads
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=f"{next(iter(leads))} (is|has)"):
        open_similarity(str(tmp_path))


def test_a_config_far_larger_than_its_weights_takes_no_memory(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "clip")
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 10**9
    (copy / "config.json").write_text(json.dumps(config))
    (score,) = open_scores(ScoresSection([SimilaritySection(similarity=str(copy))]))
    scored = measure([score], FRAMES, {"prompt": "a"})
    assert "max_position_embeddings 1000000000" in scored.errors["similarity"]

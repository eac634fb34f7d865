"""Scores by models, small ones of random weights: similarity by CLIP, taste, safety; the reader of text."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTForImageClassification

from framefleet.pipeline.errors import JobError, ModelError, UserError
from framefleet.pipeline.outputs.columns import measure
from framefleet.plugins.scores.clip_scores import open_scores
from framefleet.plugins.scores.section import (
    AestheticSection,
    ModelScore,
    NsfwSection,
    ScoresSection,
    SimilaritySection,
)
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


LINEAR = {"weight": (1, 16), "bias": (1,)}
STACK = {"layers.0.weight": (8, 16), "layers.0.bias": (8,), "layers.10.weight": (1, 4)}
STACK |= {"layers.2.weight": (4, 8), "layers.2.bias": (4,), "layers.10.bias": (1,)}


def head(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def value_of(section: ModelScore) -> float:
    scored = measure(open_scores(ScoresSection([section])), FRAMES, {})
    assert not scored.errors
    value = scored.values[section.column]
    assert isinstance(value, float)
    return value


@pytest.mark.parametrize("shapes", [LINEAR, STACK], ids=["linear", "stack"])
def test_aesthetic_is_the_head_over_normalized_embeddings(
    shapes: dict[str, tuple[int, ...]], folder: Path, tmp_path: Path
) -> None:
    tensors = head(shapes)
    save_file(tensors, tmp_path / "head.safetensors")
    torch.save(tensors, tmp_path / "head.pth")
    clip = str(folder)
    model = CLIPModel.from_pretrained(folder).eval()
    pixels = image_processor(image_size=16)(images=[*map(Image.fromarray, FRAMES)], return_tensors="pt")
    with torch.no_grad():
        pooled = model.vision_model(**pixels).pooler_output
        values = torch.nn.functional.normalize(model.visual_projection(pooled), dim=-1)
        for name in ("", "layers.0.", "layers.2.", "layers.10."):
            if f"{name}weight" in tensors:
                values = values @ tensors[f"{name}weight"].T + tensors[f"{name}bias"]
    section = AestheticSection(aesthetic=str(tmp_path / "head.safetensors"), clip=clip)
    assert value_of(section) == pytest.approx(float(values.mean()), abs=1e-5)
    pickled = AestheticSection(aesthetic=str(tmp_path / "head.pth"), clip=clip)
    with pytest.raises(JobError, match="may be a pickle"):
        open_scores(ScoresSection([pickled]))
    allowed = pickled.model_copy(update={"allow_pickle": True})
    assert value_of(allowed) == pytest.approx(float(values.mean()), abs=1e-5)


def test_a_head_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "head.safetensors"
    save_file(head({"weight": (1, 768), "bias": (1,)}), place)
    scores = open_scores(ScoresSection([AestheticSection(aesthetic=str(place), clip=str(folder))]))
    assert "does not fit the embeddings" in measure(scores, FRAMES, {}).errors["aesthetic"]
    with pytest.raises(JobError, match="there is no file"):
        open_scores(ScoresSection([AestheticSection(aesthetic=str(tmp_path / "none"), clip=str(folder))]))
    with pytest.raises(JobError, match="aesthetic needs a model"):
        open_scores(ScoresSection(["aesthetic"]))


def classifier(place: Path, labels: list[str]) -> ViTForImageClassification:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: at for at, label in enumerate(labels)}}
    config = ViTConfig(image_size=16, patch_size=8, **sizes, **names)
    torch.manual_seed(0)
    model = ViTForImageClassification(config).eval()
    model.save_pretrained(place)
    image_processor(image_size=16).save_pretrained(place)
    return model


@pytest.mark.parametrize(
    "labels, counted",
    [(["normal", "nsfw"], [1]), (["drawings", "hentai", "neutral", "porn", "sexy"], [1, 3, 4])],
)
def test_nsfw_is_the_highest_probability_of_unsafe_classes(
    labels: list[str], counted: list[int], tmp_path: Path
) -> None:
    model = classifier(tmp_path, labels)
    pixels = image_processor(image_size=16)(images=[*map(Image.fromarray, FRAMES)], return_tensors="pt")
    with torch.no_grad():
        shares = model(**pixels).logits.softmax(-1)[:, counted].sum(-1)
    assert value_of(NsfwSection(nsfw=str(tmp_path))) == pytest.approx(float(shares.max()), abs=1e-5)
    (score,) = open_scores(ScoresSection([NsfwSection(nsfw=str(tmp_path))]))
    assert score.field.metadata[b"framefleet.digest"].decode() == score.digest


def test_what_does_not_say_what_is_unsafe_is_refused(folder: Path, tmp_path: Path) -> None:
    classifier(tmp_path, ["cat", "dog"])
    with pytest.raises(ModelError, match=r"classes of .* are cat, dog"):
        open_scores(ScoresSection([NsfwSection(nsfw=str(tmp_path))]))
    with pytest.raises(ModelError, match="does not classify images"):
        open_scores(ScoresSection([NsfwSection(nsfw=str(folder))]))
    config = json.loads((tmp_path / "config.json").read_text())
    for change, problem in (
        ({"id2label": {"0": "normal", "7": "nsfw"}}, "must name classes from 0 on"),
        ({"architectures": ["MadeUpForImageClassification"]}, "does not classify images"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match=problem):
            open_scores(ScoresSection([NsfwSection(nsfw=str(tmp_path))]))


def test_text_is_the_share_of_the_picture_that_can_be_read() -> None:
    pytest.importorskip("rapidocr")
    plain = np.full((1, 200, 400, 3), 255, np.uint8)
    image = Image.fromarray(plain[0])
    ImageDraw.Draw(image).text((20, 60), "HELLO WORLD", fill=(0, 0, 0), font=ImageFont.load_default(48))
    scores = open_scores(ScoresSection(["text"]))
    assert measure(scores, plain, {}).values == {"text": 0.0}
    share = measure(scores, np.asarray(image)[None], {}).values["text"]
    assert isinstance(share, float) and 0.05 < share < 0.5
    assert (scores[0].digest or "").startswith("rapidocr ")

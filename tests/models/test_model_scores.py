"""Scores by models: small ones of random weights, and the real reader of text, if it is installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file
from transformers import CLIPModel, ViTConfig, ViTForImageClassification

from framefleet.pipeline.errors import JobError, ModelError
from framefleet.pipeline.outputs.columns import measure
from framefleet.plugins.scores.clip_scores import open_scores
from framefleet.plugins.scores.section import AestheticSection, ModelScore, NsfwSection, ScoresSection
from tests.models.test_similarity import FRAMES, folder as clip_folder
from tests.tinies.encoders import image_processor

assert clip_folder  # a fixture
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
    shapes: dict[str, tuple[int, ...]], clip_folder: Path, tmp_path: Path
) -> None:
    tensors = head(shapes)
    save_file(tensors, tmp_path / "head.safetensors")
    torch.save(tensors, tmp_path / "head.pth")
    clip = str(clip_folder)
    model = CLIPModel.from_pretrained(clip_folder).eval()
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


def test_a_head_of_another_model_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "head.safetensors"
    save_file(head({"weight": (1, 768), "bias": (1,)}), place)
    scores = open_scores(ScoresSection([AestheticSection(aesthetic=str(place), clip=str(clip_folder))]))
    assert "does not fit the embeddings" in measure(scores, FRAMES, {}).errors["aesthetic"]
    with pytest.raises(JobError, match="there is no file"):
        open_scores(
            ScoresSection([AestheticSection(aesthetic=str(tmp_path / "none"), clip=str(clip_folder))])
        )
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


def test_what_does_not_say_what_is_unsafe_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    classifier(tmp_path, ["cat", "dog"])
    with pytest.raises(ModelError, match=r"classes of .* are cat, dog"):
        open_scores(ScoresSection([NsfwSection(nsfw=str(tmp_path))]))
    with pytest.raises(ModelError, match="does not classify images"):
        open_scores(ScoresSection([NsfwSection(nsfw=str(clip_folder))]))
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

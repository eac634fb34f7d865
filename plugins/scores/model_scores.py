"""Scores by published models: how pleasing pictures are, whether they are for adults only, share of text.

They run on the CPU, on up to 8 frames, and load what was hashed when the job was opened, as `similarity.py`.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from framefleet.api.clips import Frames
from framefleet.api.errors import JobError, ModelError, shown
from framefleet.api.models import model_digest
from framefleet.plugins.scores import similarity
from framefleet.plugins.scores.measures import some_frames

_MAX_HEAD_BYTES = 64 << 20  # LAION's heads have 3 KB and 3.7 MB
_UNSAFE = re.compile(r"nsfw|unsafe|porn|hentai|sexy|sexual|nud|explicit", re.IGNORECASE)
# Labels with the opposite meaning, e.g. "sfw" and "not nsfw".
_SAFE = re.compile(r"sfw|safe|normal|neutral|drawing|(not|non|no)[ _-]", re.IGNORECASE)
_CLASS = re.compile(r"[A-Za-z0-9]+ForImageClassification")
_OCR = "rapidocr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aesthetic:
    """How pleasing pictures are, 1 to 10: LAION's linear layers over CLIP ViT-L/14's image embeddings.

    https://github.com/LAION-AI/aesthetic-predictor and
    https://github.com/christophschuhmann/improved-aesthetic-predictor. The mean over the frames.
    head_sha256: of the file with the layers.
    """

    clip: similarity.Similarity
    head: str
    head_sha256: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.clip.digest} {self.head_sha256}".encode()).hexdigest()

    def load(self) -> None:
        self.clip.load()
        with similarity.loading:
            _layers(self)

    def __call__(self, frames: Frames, record: Mapping[str, Any]) -> float:
        import torch

        values = self.clip.image_embeddings(frames)
        with similarity.loading:
            layers = _layers(self)
        with torch.inference_mode():
            for weight, bias in layers:
                values = torch.nn.functional.linear(values, weight, bias)
        return float(values.mean())


def open_aesthetic(head: str, clip: str, *, allow_pickle: bool) -> Aesthetic:
    """Raises JobError for missing files, and for a pickle without consent, ModelError for invalid files."""
    place = Path(os.path.abspath(os.path.expanduser(head)))
    if not place.is_file():
        raise JobError(
            f"aesthetic: there is no file {place}",
            "fetch one, e.g. sa_0_4_vit_l_14_linear.pth of github.com/LAION-AI/aesthetic-predictor",
        )
    if place.suffix != ".safetensors" and not allow_pickle:
        raise JobError(
            f"aesthetic: {place} may be a pickle",
            "set `allow_pickle: true` next to it, or convert it to safetensors",
        )
    if place.stat().st_size > _MAX_HEAD_BYTES:
        raise ModelError(f"aesthetic: {place} is too large for some linear layers", "download it again")
    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    return Aesthetic(clip=similarity.open_similarity(clip, "aesthetic"), head=str(place), head_sha256=digest)


@cache
def _layers(aesthetic: Aesthetic) -> list[tuple[Any, Any]]:
    """Return the weights and biases of the layers, in order. Raises ModelError for an invalid head."""
    import torch
    from safetensors.torch import load

    content, where = Path(aesthetic.head).read_bytes(), f"aesthetic: {aesthetic.head}"
    if hashlib.sha256(content).hexdigest() != aesthetic.head_sha256:
        raise ModelError(
            f"{where} differs from the file on the machine that opened the job", "copy the same file there"
        )
    try:
        if aesthetic.head.endswith(".safetensors"):
            tensors = load(content)
        else:
            tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        weights = (name for name in tensors if name.endswith("weight"))
        # Sort by the number of the layer, e.g. in layers.4.weight.
        names = sorted(weights, key=lambda name: int(next(iter(re.findall(r"\d+", name)), 0)))
        layers = [
            (tensors[name].float(), tensors[name.removesuffix("weight") + "bias"].float()) for name in names
        ]
    except Exception as error:  # pickle and zipfile raise almost any class for broken files
        raise ModelError(
            f"{where} does not contain linear layers: {type(error).__name__}", "download it again"
        ) from error
    width = aesthetic.clip.width
    for weight, bias in layers:
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
            raise ModelError(
                f"{where} does not fit the embeddings of {aesthetic.clip.folder}, of width {width}",
                "use the CLIP model that it was trained with, ViT-L/14 for LAION's",
            )
        width = weight.shape[0]
    if width != 1 or not layers:
        raise ModelError(f"{where} does not end in one number", "use a head of LAION's aesthetic predictors")
    return layers


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsafe:
    """The probability that a clip is for adults only, 0 to 1: the maximum over the frames.

    Uses an image classifier of transformers, e.g. Falconsai/nsfw_image_detection. class_name: of its network.
    labels: numbers of the classes that count.
    """

    folder: str
    class_name: str
    labels: tuple[int, ...]
    files: tuple[tuple[str, str], ...]
    digest: str

    def load(self) -> None:
        with similarity.loading:
            _classifier(self)

    def __call__(self, frames: Frames, record: Mapping[str, Any]) -> float:
        with similarity.loading:
            model, processor = _classifier(self)
        import torch

        images = list(some_frames(frames))
        pixels = processor(images=images, return_tensors="pt", input_data_format="channels_last")
        with torch.inference_mode():
            shares = model(pixel_values=pixels["pixel_values"]).logits.softmax(dim=-1)
        return float(shares[:, list(self.labels)].sum(dim=-1).max())


def open_unsafe(folder: str) -> Unsafe:
    """Return the score for the classifier in a folder. Hashes its files, but does not load them.

    Raises JobError if there is no such folder, ModelError for another kind of model.
    """
    example = "Falconsai/nsfw_image_detection --local-dir nsfw"
    place, config = similarity.model_folder(folder, "nsfw", "an image classifier", example)
    import transformers

    classes = config.get("architectures")
    class_name = classes[0] if isinstance(classes, list) and classes else classes
    is_named = isinstance(class_name, str) and _CLASS.fullmatch(class_name)
    if not is_named or class_name not in dir(transformers):
        raise ModelError(
            f"nsfw: {place} has a {class_name}, which does not classify images",
            f"use e.g. {example.split()[0]}",
        )
    names = config.get("id2label")
    labels_of = {key: str(name) for key, name in names.items()} if isinstance(names, dict) else {}
    if labels_of.keys() != {str(number) for number in range(len(labels_of))}:
        raise ModelError(
            f"nsfw: {place}/config.json: id2label is {shown(names)}, but must name classes from 0 on",
            "download it again",
        )
    texts = {int(key): name for key, name in labels_of.items()}
    labels = sorted(key for key, name in texts.items() if _UNSAFE.search(name) and not _SAFE.match(name))
    if not labels or len(labels) == len(texts):
        raise ModelError(
            f"nsfw: the classes of {place} are {', '.join(texts.values()) or 'not named'}",
            "use a classifier with a class such as nsfw or porn",
        )
    files = similarity.model_files(place, "nsfw")
    return Unsafe(
        folder=str(place),
        class_name=class_name,
        labels=tuple(labels),
        files=tuple(sorted(files.items())),
        digest=model_digest(files),
    )


@cache
def _classifier(unsafe: Unsafe) -> tuple[Any, Any]:
    from transformers import AutoImageProcessor

    network = similarity.loaded_network(Path(unsafe.folder), dict(unsafe.files), unsafe.class_name)
    with network as (place, model):
        return model, AutoImageProcessor.from_pretrained(place)


@dataclass(frozen=True, slots=True)
class PictureText:
    """Share of the picture that is text, 0 to 1: the mean over the frames.

    Uses RapidOCR, whose package includes its models. digest: its version.
    """

    digest: str

    def load(self) -> None:
        with similarity.loading:
            _reader()

    def __call__(self, frames: Frames, record: Mapping[str, Any]) -> float:
        shares = []
        for frame in some_frames(frames):
            with similarity.loading:  # it is not thread-safe
                boxes = _reader()(frame[..., ::-1].copy(), use_cls=False).boxes  # BGR
            area = 0.0
            for box in [] if boxes is None else boxes:  # the corners of a polygon
                x, y = np.asarray(box).T
                area += float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)
            shares.append(min(1.0, area / (frame.shape[0] * frame.shape[1])))
        return float(np.mean(shares))


def open_text() -> PictureText:
    """Raises JobError if the package is not installed."""
    try:
        return PictureText(f"{_OCR} {version(_OCR)}")
    except PackageNotFoundError:
        fix = "pip install 'framefleet[ocr]', on every machine"
        raise JobError(f"scores: text needs {_OCR}", fix) from None


@cache
def _reader() -> Any:
    from rapidocr import RapidOCR

    threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
    return RapidOCR(params={"Global.log_level": "error", **threads})

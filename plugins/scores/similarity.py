"""Measure how well a clip matches its prompt, with a CLIP model in a folder. Loads only hashed safetensors.

Runs on the CPU, also in workers with a GPU, so that it needs no GPU memory while other rows are denoised.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from framefleet.api.clips import Frames
from framefleet.api.errors import JobError, ModelError
from framefleet.api.models import model_digest
from framefleet.pipeline.model.sources.components import Component
from framefleet.pipeline.model.sources.config_checks import check_configs, check_sizes
from framefleet.pipeline.model.sources.headers import check_file_size, read_first
from framefleet.pipeline.model.sources.integrity import check_digests, file_digests
from framefleet.pipeline.model.sources.selection import PICKLES, chosen_weights, is_weights
from framefleet.pipeline.model.specs.model_index import MAX_JSON_BYTES, read_object
from framefleet.plugins.scores.measures import some_frames

MOST_CHARACTERS = 4096  # of a prompt, of which CLIP reads 77 tokens
_TEXTS = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)

loading = threading.Lock()  # writer threads call at the same time, but share one model


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    """The mean cosine between CLIP's embeddings of the frames and the prompt, -1 to 1. Pictures that match
    their prompt have 0.25 to 0.35 with most CLIP models.

    CLIPSIM of Wu et al., "GODIVA" (arXiv 2104.14806), over up to 8 frames. The scale depends on the model, so
    compare only values of one model. None without a prompt. files: SHA-256 of the folder's files. digest: of
    all of them.
    """

    folder: str
    files: tuple[tuple[str, str], ...]
    digest: str

    def load(self) -> None:
        """Load the model in advance. Raises ModelError if files have changed since they were hashed."""
        with loading:
            _loaded(self)

    @property
    def width(self) -> int:
        """Dimensions of an embedding. Loads the model; call it as `_loaded`, under `loading`."""
        return int(_loaded(self)[0].config.projection_dim)

    def image_embeddings(self, frames: Frames) -> Any:
        """Return normalized embeddings of up to 8 frames, as a tensor (frames, dimensions)."""
        with loading:
            model, processor, _ = _loaded(self)
        import torch

        pixels = processor(
            images=list(some_frames(frames)), return_tensors="pt", input_data_format="channels_last"
        )
        with torch.inference_mode():
            pooled = model.vision_model(pixel_values=pixels["pixel_values"]).pooler_output
            return torch.nn.functional.normalize(model.visual_projection(pooled), dim=-1)

    def __call__(self, frames: Frames, record: Mapping[str, Any]) -> float | None:
        prompt = record.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            return None
        images = self.image_embeddings(frames)
        model, _, tokenizer = _loaded(self)
        import torch

        longest = model.config.text_config.max_position_embeddings
        text = tokenizer([prompt[:MOST_CHARACTERS]], truncation=True, max_length=longest, return_tensors="pt")
        with torch.inference_mode():
            pooled = model.text_model(
                input_ids=text["input_ids"], attention_mask=text["attention_mask"]
            ).pooler_output
            texts = torch.nn.functional.normalize(model.text_projection(pooled), dim=-1)
        return float((images @ texts.T).mean())


def open_similarity(folder: str, title: str = "similarity") -> Similarity:
    """Return the score for a folder with a CLIPModel of transformers. Hashes its files, without loading them.

    title: of the score, for messages. Raises JobError if there is no such folder, ModelError for another kind
    of model.
    """
    example = "openai/clip-vit-base-patch32 --local-dir clip"
    place, config = model_folder(folder, title, "a CLIP model", example)
    if (kind := config.get("model_type")) != "clip":
        raise ModelError(f"{title}: {place} has a model of type {kind!r}", "use a folder of type 'clip'")
    files = model_files(place, title)
    return Similarity(folder=str(place), files=tuple(sorted(files.items())), digest=model_digest(files))


def model_folder(folder: str, title: str, what: str, example: str) -> tuple[Path, dict[str, Any]]:
    """Return a folder and its config. example: arguments of `hf download`. Raises JobError if missing."""
    place = Path(os.path.abspath(os.path.expanduser(folder)))
    if not (place / "config.json").is_file():
        raise JobError(
            f"{title}: {place} is not the folder of {what}: it has no config.json",
            f"download one, e.g. `hf download {example}`",
        )
    return place, read_object(place / "config.json")


def model_files(place: Path, title: str) -> dict[str, str]:
    """Return the SHA-256 of the files from which transformers loads a model."""
    there = {file.name for file in place.iterdir() if file.is_file() and not file.name.endswith(PICKLES)}
    weights = chosen_weights(
        "transformers",
        there,
        lambda name: read_first(place.parent / name, MAX_JSON_BYTES),
        place.name,
        str(place),
    )
    if not weights:
        problem = f"{title}: {place} has no model.safetensors"
        raise ModelError(problem, "download a revision with safetensors; pickles are not loaded")
    for name in filter(is_weights, weights):
        check_file_size(place / name)
    names = [*filter(there.__contains__, _TEXTS), *weights]
    check_configs(place, names)
    return file_digests(place, names)


@contextmanager
def loaded_network(folder: Path, files: dict[str, str], class_name: str) -> Iterator[tuple[str, Any]]:
    """Yield a folder with the hashed files, and the network of this class loaded from it, on the CPU."""
    import torch
    import transformers

    from framefleet.pipeline.model.sources.network_loading import LoadedNetwork, check_loaded
    from framefleet.pipeline.model.sources.verified_folder import sealed  # imports torch

    check_digests(folder, file_digests(folder, files), files, named_by="the machine that opened the job")
    part = Component(name=folder.name, library="transformers", class_name=class_name, loader="transformers")
    sizes = {f"{folder.name}/{file}": (folder / file).stat().st_size for file in files}
    check_sizes(folder.parent, [part], sizes, where=str(folder.parent), is_built=True)
    with sealed(folder, files) as place:
        model, report = getattr(transformers, class_name).from_pretrained(
            place, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
        loaded = LoadedNetwork(network=model, report=report, where=str(folder), is_packed=False)
        check_loaded([loaded], allow_unmatched=False)
        yield str(place), model.eval()


@cache  # one model per worker
def _loaded(similarity: Similarity) -> tuple[Any, Any, Any]:
    from transformers import CLIPImageProcessor, CLIPTokenizer

    files = dict(similarity.files)
    with loaded_network(Path(similarity.folder), files, "CLIPModel") as (place, model):
        if "preprocessor_config.json" in files:
            processor = CLIPImageProcessor.from_pretrained(place)
        else:
            side = model.config.vision_config.image_size
            crop = {"height": side, "width": side}
            processor = CLIPImageProcessor(size={"shortest_edge": side}, crop_size=crop)
        return model, processor, CLIPTokenizer.from_pretrained(place)

"""The honest models, tables and outputs that bad input is made of; built once, before any child is forked."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import save, save_file

from framefleet.plugins.marks.manifest import open_signing
from framefleet.plugins.marks.settings import ClipMarks, Provider, Signing, Watermark
from framefleet.plugins.marks.step import MarkStep
from framefleet.plugins.models.command import lock_command
from framefleet.plugins.pages.gallery.gallery import write_gallery
from tests.certificates import issue
from tests.crafter_originals import checkpoint
from tests.gallery_output import write_output
from tests.gguf_files import wan_weights, write_gguf
from tests.here import rendered
from tests.loras import DIALECTS, Others, plain_pipe, save_lora
from tests.media_files import image_file, video_file
from tests.tiny import build


@dataclass(frozen=True)
class Material:
    """Everything below one folder; each part is built when it is first asked for, and never changed."""

    folder: Path

    @functools.cache  # noqa: B019 - one for the whole run
    def model(self, name: str) -> Path:
        return build(name, self.folder / name)

    @functools.cache  # noqa: B019
    def lock(self, name: str) -> Path:
        """Return a lock file of the honest model."""
        path = self.folder / f"{name}.lock.json"
        lock_command(str(self.model(name)), output=path)
        return path

    @functools.cached_property
    def lora(self) -> bytes:
        return save_lora("wan", "style", self.folder / "lora").read_bytes()

    @functools.cached_property
    def gguf(self) -> bytes:
        """Return a transformer as publishers pack it."""
        path = self.folder / "wan.gguf"
        return write_gguf(wan_weights(), path, gguf.GGMLQuantizationType.Q8_0).read_bytes()

    @functools.cached_property
    def single_file(self) -> bytes:
        weights = {name: value.contiguous() for name, value in wan_weights().items()}
        return save(weights)

    @functools.cached_property
    def lora_layers(self) -> dict[str, tuple[list[dict[str, torch.Tensor]], Others]]:
        """Return the layers of each dialect for the tiny models, and what has no place next to one."""
        return {
            name: (one.layers(plain_pipe(one.model, torch.float32)), one.others)
            for name, one in DIALECTS.items()
        }

    @functools.cached_property
    def output(self) -> tuple[Path, list[str]]:
        """Return a rendered output and the row_ids in it."""
        folder = self.folder / "rendered"
        folder.mkdir()
        output, row_ids = rendered(folder, "wan")
        return Path(output), row_ids

    @functools.cached_property
    def marked(self) -> tuple[Path, list[bytes]]:
        """Return an output whose clips carry every mark, with its gallery; and the files of the clips."""
        folder = self.folder / "marked"
        folder.mkdir()
        certificate, key = issue(folder)
        marks = ClipMarks(
            sign=open_signing(Signing(certificate=str(certificate), private_key=str(key))),
            provider=Provider(name="Example"),
            watermarks=(Watermark(name="spread"),),
            label=True,
        )
        store = write_output(
            folder / "out", [{"prompt": "a"}, {"prompt": "b"}], steps={"marks": MarkStep(marks=marks)}
        )
        write_gallery(store)
        return folder / "out", [path.read_bytes() for path in sorted((folder / "out/clips").rglob("*.mp4"))]

    @functools.cached_property
    def original(self) -> dict[str, Any]:
        return checkpoint("videocrafter2-t2v-512")

    @functools.cached_property
    def checkpoints(self) -> dict[str, bytes]:
        """Return the original as people publish it, by the name of the file."""
        pickled = io.BytesIO()
        torch.save({"state_dict": self.original, "epoch": 3}, pickled)
        path = self.folder / "original.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in self.original.items()}, path)
        return {"model.ckpt": pickled.getvalue(), "model.safetensors": path.read_bytes()}

    @functools.cached_property
    def images(self) -> dict[str, bytes]:
        return {name: image_file(name) for name in ("png", "jpeg", "webp", "bmp", "tiff", "gif")}

    @functools.cached_property
    def videos(self) -> dict[str, bytes]:
        return {"mp4": video_file(), "mkv": video_file("matroska"), "avi": video_file("avi", "mpeg4")}

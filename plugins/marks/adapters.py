"""Watermarks of other libraries, with weights from a path. Nothing is fetched, and weights cannot run code.

The networks are built from the packages and this file, never from configs next to the weights.

Each class is a `FrameMark` or a `SoundMark` of watermark.py, which handles one clip at a time.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from framefleet.api.clips import Frames
from framefleet.api.errors import JobError, count_text
from framefleet.plugins.marks.payload import Bits, Reading, Samples
from framefleet.plugins.marks.settings import Watermark
from framefleet.plugins.marks.weights import not_weights, read_weights

if TYPE_CHECKING:
    from framefleet.plugins.marks.weights import Tensors

_AT_ONCE = 32  # frames; a multiple of four, since Video Seal uses one pattern for four frames
_RATE = 16_000  # sample rate that AudioSeal was trained with
_PRESENT = 0.5  # share of the sound in which AudioSeal must detect a watermark
# Errors of networks and of AudioSeal's loader for tensors that do not fit.
_MISFITS = (AssertionError, AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError)


class VideoSeal:
    """Video Seal 1.0 (256 bits). Its weights are the checkpoint y_256b_img.pth."""

    num_bits = 256

    def __init__(self, watermark: Watermark) -> None:
        with _of("videoseal"):
            import videoseal
            from omegaconf import OmegaConf
            from videoseal.augmentation.augmenter import get_dummy_augmenter
            from videoseal.models import Videoseal, build_embedder, build_extractor
            from videoseal.modules.jnd import JND

        card = OmegaConf.load(Path(videoseal.__file__).parent / "cards" / "videoseal_1.0.yaml")
        args, size = card.args, card.args.img_size_proc
        networks = (
            build_embedder(
                card.embedder.model, card.embedder.params, args.nbits, args.hidden_size_multiplier
            ),
            build_extractor(card.extractor.model, card.extractor.params, size, args.nbits),
        )
        self._model = Videoseal(
            *networks,
            get_dummy_augmenter(),
            attenuation=JND(in_channels=1, out_channels=1),  # jnd_1_1 in its configs
            scaling_w=args.scaling_w,
            scaling_i=args.scaling_i,
            img_size=size,
            chunk_size=args.videoseal_chunk_size,
            step_size=args.videoseal_step_size,
        )
        _load(watermark, self._model, *read_weights(watermark), but=("attenuation.",))

    def embed(self, frames: Frames, bits: Bits, *, device: str) -> Frames:
        import torch

        marked, message = frames.copy(), torch.from_numpy(bits[None].astype(np.float32))
        model = self._model.to(device)
        for first in range(0, len(frames), _AT_ONCE):
            part = _pictures(frames[first : first + _AT_ONCE], device)
            made = model.embed(part, message, is_video=len(part) > 1)["imgs_w"]
            pixels = (made * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
            marked[first : first + _AT_ONCE, ..., :3] = pixels.cpu().numpy()
        return marked

    def read(self, frames: Sequence[Frames], *, is_quick: bool) -> Iterator[Reading]:
        seen = self._model.to("cpu").detect(_pictures(np.stack(list(frames)), "cpu"), is_video=True)
        yield Reading(soft=seen["preds"][:, 1:].mean(0).double().numpy())


class AudioSeal:
    """AudioSeal (16 bits). Its weights are a folder with generator_base.pth and detector_base.pth."""

    num_bits = 16

    def __init__(self, watermark: Watermark) -> None:
        with _of("audioseal"):
            from audioseal import builder, loader

        made = []
        kinds = (
            ("audioseal_wm_16bits", builder.AudioSealWMConfig, builder.create_generator),
            ("audioseal_detector_16bits", builder.AudioSealDetectorConfig, builder.create_detector),
        )
        states = read_weights(watermark, ("generator_base.pth", "detector_base.pth"))
        for (card, kind, create), tensors in zip(kinds, states, strict=True):
            config = dict(loader.load_local_model_config(card))
            network = create(loader.AudioSeal.parse_config(config, config_type=kind, nbits=self.num_bits))
            try:
                loader.load_state_dict(network, loader.convert_state_dict_for_scriptable_model(tensors))
            except _MISFITS as error:
                raise not_weights(watermark, str(error)) from None
            made.append(network.eval())
        self._generator, self._detector = made

    def embed(self, samples: Samples, sample_rate: int, bits: Bits, *, device: str) -> Samples:
        import torch

        sound = torch.from_numpy(_at_rate(samples, sample_rate, _RATE))[:, None].to(device)
        added = self._generator.to(device).get_watermark(sound, message=torch.from_numpy(bits).to(device))
        change = _at_rate(added[:, 0].cpu().numpy(), _RATE, sample_rate)
        count = min(samples.shape[1], change.shape[1])
        marked = samples.copy()
        marked[:, :count] += change[:, :count]
        return marked

    def read(self, samples: Samples, sample_rate: int) -> Iterator[Reading]:
        import torch

        sound = torch.from_numpy(_at_rate(samples.mean(0, keepdims=True), sample_rate, _RATE))[:, None]
        present, message = self._detector.to("cpu").detect_watermark(sound)
        if float(present) > _PRESENT:
            yield Reading(soft=message[0].double().numpy() - 0.5)


class TrustMark:
    """TrustMark (61 bits). Its weights are a folder with encoder_Q.ckpt and decoder_Q.ckpt.

    Uses the first of the variants C, Q, B and P in the folder. Videos are marked frame by frame.
    """

    num_bits = 61

    def __init__(self, watermark: Watermark) -> None:
        with _of("trustmark"):
            import trustmark

        folder = Path(watermark.weights or "")
        variant = next((one for one in "CQBP" if (folder / f"encoder_{one}.ckpt").is_file()), "Q")
        parts = ("encoder", "decoder")
        tensors = read_weights(watermark, [f"{part}_{variant}.ckpt" for part in parts])
        networks = {part: _trust_mark_network(part, variant) for part in parts}
        for part, state in zip(parts, tensors, strict=True):
            own = {name: value for name, value in state.items() if name.startswith(f"{part}.")}
            _load(watermark, networks[part], own, but=("fixed_input", "update_gen"))

        class Offline(trustmark.TrustMark):  # type: ignore[misc]
            def load_model(self, config: str, weights: str, device: str, *_: Any, part: str) -> Any:
                return copy.deepcopy(networks[part]).to(device)

        mode = trustmark.TrustMark.Encoding.BCH_5
        self._made: dict[str, Any] = {}
        self._make: Callable[[str], Any] = lambda device: Offline(
            verbose=False, device=device, model_type=variant, encoding_type=mode, loadRemover=False
        )
        self._on("cpu")

    def embed(self, frames: Frames, bits: Bits, *, device: str) -> Frames:
        marked, secret = frames.copy(), "".join(map(str, bits))
        for frame in marked:
            made = self._on(device).encode(Image.fromarray(frame[..., :3]), secret, MODE="binary")
            frame[..., :3] = np.asarray(made)
        return marked

    def read(self, frames: Sequence[Frames], *, is_quick: bool) -> Iterator[Reading]:
        for frame in frames:
            secret, is_there, _ = self._on("cpu").decode(Image.fromarray(frame), MODE="binary")
            if is_there and len(secret) == self.num_bits:
                yield Reading(soft=np.array([float(bit) for bit in secret]) - 0.5)

    def _on(self, device: str) -> Any:
        if device not in self._made:
            with redirect_stdout(sys.stderr):  # it prints while loading
                self._made[device] = self._make(device)
        return self._made[device]


@contextmanager
def _of(package: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        problem = f"marks.watermark: {package} cannot be imported: {error}"
        raise JobError(problem, f"pip install 'framefleet[{package}]', on every machine") from None


def _load(watermark: Watermark, network: Any, tensors: Tensors, *, but: tuple[str, ...]) -> None:
    """Load weights into a network. but: prefixes of names that may be missing. Raises ModelError."""
    try:
        names, _ = network.load_state_dict(tensors, strict=False)
    except _MISFITS as error:
        raise not_weights(watermark, str(error)) from None
    if missing := [name for name in names if not name.startswith(but)]:
        raise not_weights(watermark, f"it lacks {count_text(len(missing), 'tensor')}, e.g. {missing[0]}")
    network.eval()


def _trust_mark_network(part: str, variant: str) -> Any:
    """Return the network of one part, with the values of the four configs that its authors publish.

    The configs themselves, YAML files whose `target` is imported and called, are not read.
    """
    from omegaconf import OmegaConf
    from trustmark.model import TrustMark_Arch

    arch = "resnet18" if variant == "C" else "resnet50"
    encoder = {"width": 32, "ndown": 4, "nmiddle": 1, "activ": "silu"}
    configs = {
        "encoder": {"target": "trustmark.unet.Unet1", "params": encoder},
        "decoder": {"target": "trustmark.unet.SecretDecoder", "params": {"arch": arch}},
    }
    nothing = {"target": "trustmark.model.Identity", "params": {}}
    parts = {name: OmegaConf.create(config if name == part else nothing) for name, config in configs.items()}
    return TrustMark_Arch(
        **{"cover_key": "image", "secret_key": "secret", "secret_len": 100, "resolution": 256},
        secret_encoder_config=parts["encoder"],
        secret_decoder_config=parts["decoder"],
        discriminator_config=nothing,
        loss_config=nothing,
        noise_config=nothing,
    )


def _pictures(frames: Frames, device: str) -> Any:
    """Return frames as floats in [0, 1], (T, 3, H, W)."""
    import torch

    pictures = torch.from_numpy(np.ascontiguousarray(frames[..., :3])).to(device)
    return pictures.permute(0, 3, 1, 2).float() / 255


def _at_rate(samples: Samples, rate: int, wanted: int) -> Samples:
    from scipy.signal import resample_poly

    ratio = Fraction(wanted, rate)
    return resample_poly(samples, ratio.numerator, ratio.denominator, axis=1).astype(np.float32)

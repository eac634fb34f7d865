"""Inspect a model, write its lock file, and check whether it is still the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from framefleet.api.commands import Overview
from framefleet.api.errors import JobError, ModelError, command
from framefleet.api.models import SAFETENSORS, PipelineSpec, model_digest
from framefleet.pipeline.model.library_process import LIBRARY_PROCESS
from framefleet.pipeline.model.sources.integrity import LOCK_FILE, ModelLock, is_named
from framefleet.pipeline.model.sources.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentInfo:
    """One component of a pipeline, from its model_index.json."""

    name: str
    class_name: str
    dtypes: tuple[str, ...]  # of its tensors, the most frequent first; "pickle" if they cannot be read
    num_parameters: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ModelInfo(Overview):
    """What a model consists of, and what it renders."""

    name: str
    class_name: str  # of its pipeline
    kind: str  # video, image or audio
    preset: str | None
    license: str
    rules: Mapping[str, str]  # sizes, frames, scheduler and so on, as text
    digest: str | None  # of its lock file; None if not locked
    components: tuple[ComponentInfo, ...]
    memory: str  # the offload that fits each size of GPU, as text

    def overview(self) -> Mapping[str, object]:
        return {
            "model": self.name,
            "pipeline": f"{self.class_name} ({self.kind})",
            "license": self.license,
            "components": ", ".join(component.name for component in self.components),
            "size": self.rules.get("size"),
            "frames": self.rules.get("frames"),
            "memory": self.memory,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """The files from which a model is loaded."""

    lock: Path | None  # the written lock file
    num_files: int
    num_bytes: int
    digest: str  # of all of them
    compared_with: tuple[Literal["lock", "cache"], ...] = ()  # cache: file names there are the hub's digests


def model_info(model: str, *, revision: str | None = None, allow_pickle: bool = False) -> ModelInfo:
    """Return a model's components and what it renders. Fetches only small files and headers.

    model: a pipeline's folder, hub id or URL. Raises ModelError for a model that cannot be used.
    """
    with LIBRARY_PROCESS.use():
        from framefleet.api.models import inspect_model
        from framefleet.pipeline.model.license import license_of
        from framefleet.plugins.forecast.license_terms import license_line

        weights = opened_model(model, revision=revision, allow_pickle=allow_pickle)
        spec = inspect_model(weights.configs())
        return ModelInfo(
            name=weights.source.name,
            class_name=spec.class_name,
            kind=spec.kind,
            preset=spec.preset.name if spec.preset else None,
            license=license_line(license_of(weights.source, spec.preset, None, usual=spec.family.license)),
            rules=_rules(spec),
            digest=model_digest(weights.lock.digests) if weights.lock else None,
            components=tuple(_components(weights)),
            memory=_fits(weights, spec),
        )


def lock_model(
    model: str,
    file: str | Path | None = None,
    *,
    revision: str | None = None,
    base: str | None = None,
    parts: Mapping[str, str] | None = None,
    allow_pickle: bool = False,
) -> ModelFiles:
    """Write the size and SHA-256 of each file from which a model is loaded. `render` then refuses others.

    model: a pipeline's folder, hub id or URL, or a single file with the `base` that it was made for. parts:
    files with weights of components, by name. file: to write; None: model.lock.json in the model's folder if
    it is local and there are no parts, else in the current folder. Raises ModelError if the model cannot be
    read, and JobError if the file cannot be written.
    """
    from framefleet.pipeline.outputs.stores.folder import Folder

    weights = opened_model(
        model, revision=revision, allow_pickle=allow_pickle, base=base, parts=parts, ignores_lock=True
    )
    digests = weights.digests()
    lock = ModelLock(
        source=weights.source.name,
        revision=weights.source.revision,
        class_name=weights.class_name,
        sizes=_sizes(weights),
        digests=digests,
    )
    is_in_model = weights.source.is_local and not weights.parts  # a lock there must be for the base only
    path = Path(file) if file else (Path(weights.source.path) if is_in_model else Path()) / LOCK_FILE
    try:
        # Replace the file and do not write through it, as it may be a link that came with the model.
        Folder(path.absolute().parent).write(path.name, lock.to_json().encode())
    except OSError as error:
        raise JobError(f"{path} cannot be written: {error.strerror}", "choose another file") from error
    size = sum(lock.sizes.values())
    return ModelFiles(lock=path, num_files=len(digests), num_bytes=size, digest=model_digest(digests))


def verify_model(
    model: str,
    lock: str | Path | None = None,
    *,
    revision: str | None = None,
    base: str | None = None,
    parts: Mapping[str, str] | None = None,
    allow_pickle: bool = False,
) -> ModelFiles:
    """Read every file from which a model is loaded; compare it with the lock file and the hub's digests.

    lock: a lock file; None: the one in the model's folder. Other arguments as for `lock_model`. Raises
    ModelError for a file that differs, and for a model without digests to compare with.
    """
    weights = opened_model(
        model,
        revision=revision,
        allow_pickle=allow_pickle,
        lock=str(lock) if lock else None,
        base=base,
        parts=parts,
    )
    folder, digests = weights.fetched()
    compared: list[Literal["lock", "cache"]] = ["lock"] if weights.lock else []
    if any(is_named(folder / name) for name in weights.files):
        compared.append("cache")
    if not compared:
        raise ModelError(
            f"{weights.source.name} has no {LOCK_FILE}, and its files are not named by their content",
            f"lock a copy that is known to be right: {command('model', 'lock', model)}",
        )
    return ModelFiles(
        lock=None,
        num_files=len(digests),
        num_bytes=sum(_sizes(weights).values()),
        digest=model_digest(digests),
        compared_with=tuple(compared),
    )


def opened_model(
    model: str,
    *,
    revision: str | None,
    allow_pickle: bool,
    lock: str | None = None,
    ignores_lock: bool = False,
    base: str | None = None,
    parts: Mapping[str, str] | None = None,
) -> Weights:
    """Open a model's weights, reading only headers. ignores_lock: ignore the lock in its folder."""
    from framefleet.pipeline.model.sources.parts import base_and_parts, open_parts
    from framefleet.pipeline.model.sources.source import open_source
    from framefleet.pipeline.model.sources.weights import open_weights

    place, files = base_and_parts(model, base, parts or {})
    return open_weights(
        open_source(place, revision=revision),
        lock=lock,
        allow_pickle=allow_pickle,
        ignore_lock=ignores_lock,
        parts=open_parts(files, {}),
    )


def _sizes(weights: Weights) -> dict[str, int]:
    """Return the sizes of all files to load; parts have their names in the model's digest."""
    own = {file: weights.source.files[file].size for file in weights.files}
    return own | {part.key: part.size for part in weights.parts}


def _components(weights: Weights) -> Iterator[ComponentInfo]:
    """Yield the components, in the order of model_index.json. Reads only headers."""
    source = weights.source
    for component in weights.components:
        files = [file for file in weights.files if file.partition("/")[0] in component.folders]
        by_dtype: Counter[str] = Counter()
        for file in files:
            if file.endswith(SAFETENSORS):
                for tensor in source.header(file)[0]:
                    by_dtype[tensor.dtype] += tensor.num_parameters
        dtypes = tuple(name.lower() for name, _ in by_dtype.most_common())
        yield ComponentInfo(
            name=component.name,
            class_name=component.class_name,
            dtypes=dtypes or ("pickle",) * component.has_weights,
            num_parameters=by_dtype.total(),
            num_bytes=sum(source.files[file].size for file in files),
        )


def _rules(spec: PipelineSpec) -> dict[str, str]:
    from framefleet.api.models import FRAME_PARAMETERS
    from framefleet.plugins.models.descriptions import in_words

    step = spec.frame_step
    rest = f" + {spec.frame_rest}" if spec.frame_rest else ""
    frames = f"{step}k{rest}" if step and step > 1 else "any number"
    if spec.only_frames:
        frames = f"{spec.only_frames}, no other number"
    shortest = f", at least {spec.min_frames}" if spec.min_frames else ""
    longest = f", at most {spec.max_frames}" if spec.max_frames else ""
    defaults = spec.defaults()
    height, width = defaults.get("height"), defaults.get("width")
    count = next((defaults[name] for name in FRAME_PARAMETERS if name in defaults), None)
    size = f"multiples of {spec.size_multiple}" + (f", {height} x {width} unless given" if height else "")
    rules = {} if spec.kind == "audio" else {"size": size}
    if spec.kind == "video":
        rules["frames"] = f"{frames}{shortest}{longest}" + (f", {count} unless given" if count else "")
        rules["fps"] = f"{spec.native_fps:g}" if spec.native_fps else "not known"
    if spec.has_sound:
        rules["sound"] = "alone" if spec.kind == "audio" else "with the frames"
    if spec.preset:
        rules["defaults"] = ", ".join(f"{name} {value}" for name, value in spec.native().items())
        rules["dtype"] = f"on a GPU {in_words(spec.preset)}"
    return rules | {"scheduler": spec.scheduler_class or "none; it has its own steps"}


def _fits(weights: Weights, spec: PipelineSpec) -> str:
    """Describe which offload fits which GPU, for a row of the model's native size."""
    from framefleet.api.models import ModelSettings
    from framefleet.plugins.memory.footprint import CARDS_GB, Way
    from framefleet.plugins.memory.memory import MemoryCounts, native_row
    from framefleet.plugins.models.descriptions import fitting

    settings = ModelSettings(path=weights.source.path)
    with closing(MemoryCounts(settings, weights, spec, weights.configs(), is_on_cpu=False)) as counts:
        count = partial(counts.count, native_row(spec))
        if missing := count(Way()).missing:
            return f"not counted: {missing}"
        texts: list[str] = []
        for card in CARDS_GB:
            if (way := fitting(count, card)) == "all":  # then also on every larger GPU
                return "; ".join([*texts, f"fits whole on a GPU of {card} GB or more"])
            how = {"no": "too small", "all, tiled": "with VAE tiling"}.get(way, f"with offload {way}")
            texts.append(f"{card} GB: {how}")
        return "; ".join(texts)

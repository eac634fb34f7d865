"""`framefleet model`: what is in a model, a lock file of it, and whether it is still the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from framefleet.jobs.options import AllowPickle, Verbose
from framefleet.jobs.show.console import reporting, stderr, stdout
from framefleet.pipeline.errors import JobError, ModelError, bytes_text, command, count_text
from framefleet.pipeline.model.library_process import LIBRARY_PROCESS

if TYPE_CHECKING:
    from framefleet.pipeline.model.sources.weights import Weights
    from framefleet.pipeline.model.specs.spec import PipelineSpec

_ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Pipeline: a folder, a hub id (org/name) or a URL.")
]
_Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub model.")]
_Base = Annotated[
    str | None,
    typer.Option("--base", help="Pipeline that MODEL, one file, was made for: as in a job's `model.base`."),
]
_Parts = Annotated[
    list[str] | None,
    typer.Option(
        "--part", metavar="NAME=FILE", help="File with a component's weights, as in a job; repeatable."
    ),
]


def lock_command(
    model: _ModelArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="File to write. Default: in the model's folder if it is local, else in the current folder; "
            "of a model with parts in the current folder.",
        ),
    ] = None,
    revision: _Revision = None,
    base: _Base = None,
    parts: _Parts = None,
    allow_pickle: AllowPickle = False,
    verbose: Verbose = False,
) -> None:
    """Write model.lock.json: size and SHA-256 of each file that is loaded. `render` refuses other files."""
    with reporting(verbose=verbose):
        from framefleet.pipeline.model.sources.integrity import LOCK_FILE, ModelLock, model_digest
        from framefleet.pipeline.outputs.stores.folder import Folder

        # An older lock of the folder does not count.
        weights = _opened(model, revision, allow_pickle, ignore_lock=True, base=base, parts=parts or ())
        with stderr.status(f"reading {weights.source.name}"):
            digests = weights.digests()
        lock = ModelLock(
            source=weights.source.name,
            revision=weights.source.revision,
            class_name=weights.class_name,
            sizes=_sizes(weights),
            digests=digests,
        )
        is_in_model = weights.source.is_local and not weights.parts  # where it holds for the base alone
        path = output or (Path(weights.source.path) if is_in_model else Path()) / LOCK_FILE
        try:
            # In the name's place, and not through it: it may be a link that came with the model.
            Folder(path.absolute().parent).write(path.name, lock.to_json().encode())
        except OSError as error:
            raise JobError(f"{path} cannot be written: {error.strerror}", "give another --output") from error
        size = bytes_text(sum(lock.sizes.values()))
        stdout.say(f"{path}: {count_text(len(digests), 'file')}, {size}, digest {model_digest(digests)}")


def verify_command(
    model: _ModelArgument,
    lock: Annotated[
        Path | None, typer.Option("--lock", help="Lock file. Default: the one in the model's folder.")
    ] = None,
    revision: _Revision = None,
    base: _Base = None,
    parts: _Parts = None,
    allow_pickle: AllowPickle = False,
    verbose: Verbose = False,
) -> None:
    """Read every file that is loaded, and compare it with the lock and with the hub's digests."""
    with reporting(verbose=verbose):
        from framefleet.pipeline.model.sources.integrity import LOCK_FILE, is_named, model_digest

        weights = _opened(model, revision, allow_pickle, lock=lock, base=base, parts=parts or ())
        with stderr.status(f"reading {weights.source.name}"):
            folder, digests = weights.fetched()
        by_name = sum(is_named(folder / file) for file in weights.files)
        if not weights.lock and not by_name:
            raise ModelError(
                f"{weights.source.name} has no {LOCK_FILE}, and its files are not named by their content",
                f"make one where the model is known to be right: {command('model', 'lock', model)}",
            )
        size = bytes_text(sum(_sizes(weights).values()))
        by = " and ".join(["locked"] * bool(weights.lock) + ["named in the cache"] * bool(by_name))
        stdout.say(f"{count_text(len(digests), 'file')}, {size}, as {by}, digest {model_digest(digests)}")


def list_command(
    classes: Annotated[
        bool,
        typer.Option("--classes", help="List every pipeline class of diffusers and what is known of it."),
    ] = False,
    verbose: Verbose = False,
) -> None:
    """List the known models: native size, frames and steps, size of the weights, and hub name."""
    with reporting(verbose=verbose):
        stdout.print(_classes() if classes else _presets())


def info_command(
    model: _ModelArgument,
    revision: _Revision = None,
    allow_pickle: AllowPickle = False,
    verbose: Verbose = False,
) -> None:
    """Show what a model consists of and what it renders. Fetches only small files and headers."""
    with reporting(verbose=verbose), LIBRARY_PROCESS.use():
        from framefleet.pipeline.model.license import license_of
        from framefleet.pipeline.model.sources.integrity import model_digest
        from framefleet.pipeline.model.specs.spec import inspect_model
        from framefleet.plugins.models.descriptions import in_company, read_measured

        weights = _opened(model, revision, allow_pickle)
        spec = inspect_model(weights.configs())
        stdout.say(f"model:     {weights.source.name}")
        stdout.say(f"pipeline:  {spec.class_name} ({spec.kind})")
        preset = spec.preset.name if spec.preset else "none: defaults are those of its class and configs"
        stdout.say(f"preset:    {preset}")
        if findings := read_measured().of_class(spec.class_name):
            stdout.say(f"measured:  {in_company(findings)} (with tiny models)")
        license = license_of(weights.source, spec.preset, None, usual=spec.family.license)
        stdout.say(f"license:   {license}")
        for name, text in _rules(spec).items():
            stdout.say(f"{name + ':':<11}{text}")
        digest = (
            model_digest(weights.lock.digests)
            if weights.lock
            else f"not locked ({command('model', 'lock', model)})"
        )
        stdout.say(f"digest:    {digest}")
        stdout.print(_components(weights))
        with stderr.status("counting the memory of one row"):  # which takes seconds, of some models a minute
            memory = _fits(weights, spec)
        stdout.say(f"memory:    {memory}")


def _components(weights: Weights) -> Table:
    """Return what each component holds, in the order of model_index.json. Reads headers, and no tensor."""
    from framefleet.pipeline.model.sources.headers import read_header
    from framefleet.pipeline.model.sources.selection import SAFETENSORS

    table = Table("component", "class", "dtype", box=box.SIMPLE_HEAD)
    for name in ("parameters", "bytes"):
        table.add_column(name, justify="right")
    source, num_parameters, num_bytes = weights.source, 0, 0
    for component in weights.components:
        files = [file for file in weights.files if file.partition("/")[0] in component.folders]
        by_dtype: Counter[str] = Counter()
        for file in files:
            if file.endswith(SAFETENSORS):
                for tensor in read_header(partial(source.read, file), f"{source.name}/{file}")[1]:
                    by_dtype[tensor.dtype] += tensor.num_parameters
        dtypes = ", ".join(name.lower() for name, _ in by_dtype.most_common())  # the most frequent first
        size, count = sum(source.files[file].size for file in files), by_dtype.total()
        num_parameters, num_bytes = num_parameters + count, num_bytes + size
        dtypes = dtypes or ("pickle" if component.has_weights else "")
        table.add_row(
            component.name, component.class_name, dtypes, f"{count:,}" if count else "", f"{size:,}"
        )
    table.add_row("all", "", "", f"{num_parameters:,}", f"{num_bytes:,}")
    return table


def _opened(
    model: str,
    revision: str | None,
    allow_pickle: bool,
    *,
    lock: Path | None = None,
    ignore_lock: bool = False,
    base: str | None = None,
    parts: Sequence[str] = (),
) -> Weights:
    from framefleet.jobs.job.file import places
    from framefleet.pipeline.model.sources.parts import base_and_parts, open_parts
    from framefleet.pipeline.model.sources.source import open_source
    from framefleet.pipeline.model.sources.weights import open_weights

    place, files = base_and_parts(model, base, places(parts, "--part"))
    return open_weights(
        open_source(place, revision=revision),
        lock=str(lock) if lock else None,
        allow_pickle=allow_pickle,
        ignore_lock=ignore_lock,
        parts=open_parts(files, {}),
    )


def _sizes(weights: Weights) -> dict[str, int]:
    """Return the bytes of every file that is loaded, of parts under the names that the model's digest has."""
    own = {file: weights.source.files[file].size for file in weights.files}
    return own | {part.key: part.size for part in weights.parts}


def _rules(spec: PipelineSpec) -> dict[str, str]:
    from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS
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
    return rules | {"scheduler": spec.scheduler_class or "none: its steps are its own"}


def _fits(weights: Weights, spec: PipelineSpec) -> str:
    """Return which offload fits which GPU, for a row of the model's own size."""
    from framefleet.jobs.plan.footprint import CARDS_GB, Way
    from framefleet.jobs.plan.memory import MemoryCounts, native_row
    from framefleet.pipeline.model.model import ModelSettings
    from framefleet.plugins.models.descriptions import fitting

    settings = ModelSettings(path=weights.source.path)
    with closing(MemoryCounts(settings, weights, spec, weights.configs(), is_on_cpu=False)) as counts:
        count = partial(counts.count, native_row(spec))
        if missing := count(Way()).missing:
            return f"not counted: {missing}"
        texts: list[str] = []
        for card in CARDS_GB:
            if (way := fitting(count, card)) == "all":  # also on every larger one
                return "; ".join([*texts, f"fits whole on a GPU of {card} GB or more"])
            how = {"no": "too small", "all, tiled": "with VAE tiling"}.get(way, f"with offload {way}")
            texts.append(f"{card} GB: {how}")
        return "; ".join(texts)


def _classes() -> Table:
    """Return every pipeline class of diffusers, what it makes, and what is known of it."""
    from framefleet.plugins.models.descriptions import class_states, read_measured

    measured = read_measured()
    table = Table("class", "makes", f"with diffusers {measured.diffusers}", box=box.SIMPLE_HEAD)
    for row in class_states(measured):
        table.add_row(*row)
    return table


def _presets() -> Table:
    """Return every preset with its native values and the hub model it is of."""
    from framefleet.pipeline.model.families.registry import PRESETS
    from framefleet.plugins.models.descriptions import frames_text, makes, size_text

    table = Table("preset", "makes", "size", "frames", box=box.SIMPLE_HEAD)
    for name in ("steps", "weights GB"):
        table.add_column(name, justify="right")
    table.add_column("model", overflow="fold")
    for preset in PRESETS:
        steps, weights_gb = preset.arguments["num_inference_steps"], sum(preset.weights_gb().values())
        made = (makes(preset), size_text(preset), frames_text(preset))
        size_gb = f"{weights_gb:.1f}" if weights_gb >= 0.1 else f"{weights_gb:.2g}"
        table.add_row(preset.name, *made, str(steps), size_gb, preset.place)
    return table

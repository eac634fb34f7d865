"""What `framefleet model lock`, `verify` and `info` do, and what they print."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.table import Table

from framefleet.jobs.model.measured import in_company
from framefleet.jobs.model.page import fitting, in_words
from framefleet.jobs.show.console import stderr, stdout
from framefleet.jobs.show.libraries import quiet_libraries
from framefleet.pipeline.errors import JobError, ModelError
from framefleet.pipeline.model.families.measured import read_measured
from framefleet.pipeline.model.options.footprint import CARDS_GB
from framefleet.pipeline.model.sources.blobs import count_named
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.model.sources.model_lock import LOCK_FILE, ModelLock
from framefleet.pipeline.model.sources.model_parts import ComponentSummary, parts_of
from framefleet.pipeline.model.sources.weights import Weights, open_weights
from framefleet.pipeline.model.specs.geometry import FRAME_PARAMETERS
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.outputs.stores.folder import Folder
from framefleet.pipeline.text import command


def show_lock(model: str, *, revision: str | None, allow_pickle: bool, output: Path | None) -> None:
    """Write the lock file and print where it is. An older one of the folder does not count."""
    weights = _opened(model, revision, allow_pickle, ignore_lock=True)
    with stderr.status(f"reading {weights.source.name}"):
        digests = weights.digests()
    lock = ModelLock(
        source=weights.source.name,
        revision=weights.source.revision,
        class_name=weights.class_name,
        sizes={file: weights.source.files[file].size for file in weights.files},
        digests=digests,
    )
    path = output or (Path(weights.source.path) if weights.source.is_local else Path()) / LOCK_FILE
    try:
        # In the name's place, and not through it: it may be a link that came with the model.
        Folder(path.absolute().parent).write(path.name, lock.to_json().encode())
    except OSError as error:
        raise JobError(f"{path} cannot be written: {error.strerror}", "give another --output") from error
    size = _gigabytes(sum(lock.sizes.values()))
    stdout.say(f"{path}: {len(digests)} files, {size}, digest {model_digest(digests)}")


def show_verify(model: str, *, revision: str | None, allow_pickle: bool, lock: Path | None) -> None:
    """Raise ModelError unless every file that is loaded is the one that lock and hub name."""
    weights = _opened(model, revision, allow_pickle, lock=lock)
    with stderr.status(f"reading {weights.source.name}"):
        folder, digests = weights.fetched()
    by_name = count_named(folder, weights.files)
    if not weights.lock and not by_name:
        raise ModelError(
            f"{weights.source.name} has no {LOCK_FILE}, and its files are not named by their content",
            f"make one where the model is known to be right: {command('model', 'lock', model)}",
        )
    size = _gigabytes(sum(weights.source.files[file].size for file in weights.files))
    by = " and ".join(["locked"] * bool(weights.lock) + ["named in the cache"] * bool(by_name))
    stdout.say(f"{len(digests)} files, {size}, as {by}, digest {model_digest(digests)}")


def show_info(model: str, *, revision: str | None, allow_pickle: bool) -> None:
    """Print class, components, rules and digest."""
    weights = _opened(model, revision, allow_pickle)
    spec = inspect_model(weights.configs())
    stdout.say(f"model:     {weights.source.name}")
    stdout.say(f"pipeline:  {spec.class_name} ({spec.kind})")
    stdout.say(
        f"preset:    {spec.preset.name if spec.preset else 'none: its own signature and configs count'}"
    )
    if findings := read_measured().of_class(spec.class_name):
        stdout.say(f"measured:  {in_company(findings)}, with tiny models (docs/models.md)")
    for name, text in _rules(spec).items():
        stdout.say(f"{name + ':':<11}{text}")
    digest = (
        model_digest(weights.lock.digests)
        if weights.lock
        else f"not locked ({command('model', 'lock', model)})"
    )
    stdout.say(f"digest:    {digest}")
    stdout.print(_table(parts_of(weights)))


def _opened(
    model: str,
    revision: str | None,
    allow_pickle: bool,
    *,
    lock: Path | None = None,
    ignore_lock: bool = False,
) -> Weights:
    quiet_libraries()
    from framefleet.pipeline.model.sources.source import open_source

    source = open_source(model, revision=revision)
    path = str(lock) if lock else None
    return open_weights(source, lock=path, allow_pickle=allow_pickle, ignore_lock=ignore_lock)


def _rules(spec: PipelineSpec) -> dict[str, str]:
    step = spec.frame_step
    rest = " + 1" if spec.frame_rest else ""
    frames = f"{step}k{rest}" if step and step > 1 else "any number"
    if spec.only_frames:
        frames = f"{spec.only_frames}, no other number"
    longest = f", at most {spec.max_frames}" if spec.max_frames else ""
    defaults = spec.defaults()
    height, width = defaults.get("height"), defaults.get("width")
    count = next((defaults[name] for name in FRAME_PARAMETERS if name in defaults), None)
    size = f"multiples of {spec.size_multiple}" + (f", {height} x {width} unless given" if height else "")
    found = {} if spec.kind == "audio" else {"size": size}
    if spec.kind == "video":
        found["frames"] = f"{frames}{longest}" + (f", {count} unless given" if count else "")
        found["fps"] = f"{spec.native_fps:g}" if spec.native_fps else "not known"
    if spec.has_sound:
        found["sound"] = "alone" if spec.kind == "audio" else "beside the frames"
    if spec.preset:
        found["defaults"] = ", ".join(f"{name} {value}" for name, value in spec.native().items())
        found["dtype"] = f"on a GPU {in_words(spec.preset)}"
        found["memory"] = ", ".join(f"{card} GB {fitting(spec.preset, card)}" for card in CARDS_GB)
    return found | {"scheduler": spec.scheduler_class}


def _table(parts: list[ComponentSummary]) -> Table:
    table = Table("component", "class", "dtype", box=box.SIMPLE_HEAD)
    table.add_column("parameters", justify="right")
    table.add_column("bytes", justify="right")
    for part in parts:
        parameters = f"{part.num_parameters:,}" if part.num_parameters else ""
        table.add_row(part.name, part.class_name, part.dtypes, parameters, f"{part.size_bytes:,}")
    total = sum(part.num_parameters for part in parts)
    table.add_row("all", "", "", f"{total:,}", f"{sum(part.size_bytes for part in parts):,}")
    return table


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e7 else f"{size_bytes:,} bytes"

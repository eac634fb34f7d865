"""Write a script that renders a recorded row again with torch and diffusers alone, and compares.

Models that diffusers lacks are imported from framefleet.

Not covered: recipes other than `generate`, videos, references, and guidance schedules. It compares only
frames and sound.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from framefleet.api.errors import JobError, quoted
from framefleet.api.models import (
    SAFETENSORS,
    PipelineSpec,
    by_component,
    inspect_model,
    source_of,
    weights_of,
)
from framefleet.api.outputs import Output
from framefleet.pipeline.model.environment import MAX_CPU_ISA
from framefleet.pipeline.model.load import for_diffusers
from framefleet.pipeline.model.lora import (
    ADAPTER_IN_NAME,
    adapter_name,
    adapters_in,
    fetch_lora,
    without_loras,
)
from framefleet.pipeline.model.numerics import numerics_of
from framefleet.pipeline.model.options.pipe_calls import keywords
from framefleet.pipeline.model.options.schema import ModelOffload
from framefleet.pipeline.model.options.tuning import check_options
from framefleet.pipeline.model.registry import module_of
from framefleet.pipeline.model.sources.components import Component
from framefleet.pipeline.model.sources.folder_source import Source
from framefleet.pipeline.model.sources.headers import check_file_size
from framefleet.pipeline.model.sources.network_loading import blank_network
from framefleet.pipeline.model.sources.parts import FILE_FORMATS, PartFile, open_parts
from framefleet.pipeline.model.sources.single_file import GGUF_CONFIG, LEFT_OUT, SingleFile
from framefleet.pipeline.model.specs.dtypes import check_dtype
from framefleet.pipeline.model.specs.model_index import is_modular
from framefleet.pipeline.model.specs.schedulers import SchedulerChoice, resolve_scheduler
from framefleet.pipeline.model.specs.signature import PictureMode
from framefleet.pipeline.outputs.frames.fields import PICTURES, SOUND
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.recipes.guidance import is_schedule
from framefleet.pipeline.rows.tables.request_checks import check_again
from framefleet.plugins.keep.replay.given import NOTHING, Given
from framefleet.plugins.keep.replay.recorded_row import Recorded, find_recorded
from framefleet.plugins.keep.replay.replay import check_files
from framefleet.plugins.keep.replay.script_pictures import FUNCTION, IMPORTS, has_others, picture_calls
from framefleet.plugins.keep.replay.script_setup import Setup, script_setup

TEMPLATE = '''\
"""Render row {row_id} again and compare what it made with the record."""

# Made by framefleet {framefleet}. The clip was rendered with:
{environment}

import hashlib
{io}{os}import random
import sys
{variables}
import numpy
import torch
{modules}{pillow}{imports}

{picture}MODEL = {model!r}  # model digest {model_digest}
ARGUMENTS = {arguments}
SEED = {seed}
{digests}

{numerics}
{tf32}
{loading}
{loras}{guiders}{setup}
pipe.set_progress_bar_config(disable=True)
{scheduler}

torch.manual_seed(SEED)
numpy.random.seed(SEED % 2**32)
random.seed(SEED)
output = pipe(**ARGUMENTS, generator=torch.Generator("cpu").manual_seed(SEED), output_type="np")
{checks}'''

FRAMES_CHECK = """
frames = {frames}  # (T, H, W, {channels})
shape = "x".join(map(str, frames.shape))
digest = hashlib.sha256(f"{dtype} {{shape}}\\n".encode() + frames.tobytes()).hexdigest()
if digest != FRAMES_SHA256:
    sys.exit(f"other frames: {{digest}} now, {{FRAMES_SHA256}} in the record")
print(f"the same frames: {{digest}}")
"""

SOUND_CHECK = """
sound = torch.as_tensor({sound}).float().cpu().numpy().reshape({channels}, -1)
pcm = (sound.T.clip(-1, 1) * numpy.float32(32767)).round().astype("<i2")  # (samples, channels)
line = f"int16 {{len(pcm)}}x{channels} {sample_rate}\\n"
digest = hashlib.sha256(line.encode() + pcm.tobytes()).hexdigest()
if digest != AUDIO_SHA256:
    sys.exit(f"other sound: {{digest}} now, {{AUDIO_SHA256}} in the record")
print(f"the same sound: {{digest}}")
"""


def replay_script(output: str | Path | Output, row_id: str, given: Given = NOTHING) -> str:
    """Return the script for one row. It exits with 0 if frames and sound are as recorded, else with 1.

    given: what the output is not trusted with; its values are written into the script.
    """
    recorded = find_recorded(str(output) if isinstance(output, Path) else output, row_id, given)
    recipe = recorded.request.recipe
    if recipe != "generate":
        module = "" if recipe in BUILT_IN else "; send its module too"
        problem = f"a script cannot include the code of the recipe {recipe!r}{module}"
        raise JobError(problem, "use `framefleet replay` without --script")
    arguments = recorded.request.arguments
    unsaid = [name for name, value in arguments.items() if has_others(value) or is_schedule(name, value)]
    unsaid += ["ip_adapter"] if recorded.model.ip_adapter else []
    if unsaid:
        problem = f"a script has no videos, references, schedules or IP-adapters: {', '.join(unsaid)}"
        raise JobError(problem, "use `framefleet replay` without --script")
    source = source_of(recorded.model)
    if "://" in source.path:
        problem = f"row {row_id} was rendered with the model {source.name}, and diffusers opens no URLs"
        raise JobError(problem, "copy the model to a folder, and give that as --model")
    weights = weights_of(recorded.model, source)
    check_files(recorded, weights.digests(), source.name)
    configs = weights.configs()
    spec = inspect_model(configs)
    request = check_again(recorded.request, spec, BUILT_IN["generate"])
    check_dtype(recorded.model.dtype, spec.components)
    components, parts = weights.components, weights.parts
    check_options(recorded.model, spec, folder=configs, components=components, parts=parts)
    for component in components:
        part = by_component(parts, components).get(component.name)
        if part and "://" in part.part.path:
            problem = f"its {component.name} is from the file {part.where}, and diffusers opens no URLs"
            raise JobError(problem, f"copy it to a file, and add {quoted('--part', part.name + '=FILE')}")
        if part and not (_is_plain_file(part, component, configs) and not is_modular(spec.class_name)):
            problem = f"its {component.name} is from the file {part.where}, which a script cannot load"
            raise JobError(problem, "use `framefleet replay` without --script")
    steps, options = recorded.request.arguments.get("num_inference_steps", 1), recorded.model.options
    if is_modular(spec.class_name) and isinstance(options.offload, ModelOffload):
        options = options.model_copy(update={"offload": None})  # they have no call for it, and no bits change
    libraries = {
        component.name: component.library for component in weights.components if component.has_weights
    }
    setup = script_setup(options, libraries, device=recorded.model.device, steps=steps)
    choice = resolve_scheduler(recorded.request.scheduler, spec)
    call = _call_of(recorded, source, spec, weights.components, setup, without_loras(request.arguments))
    return _filled(recorded, source, call, choice, setup, mode=spec.picture_mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """The code that loads and calls one kind of pipeline."""

    class_name: str
    loading: str  # lines
    arguments: Mapping[str, Any]
    frames: str  # code that gets them from its output
    sound: str
    guiders: str = ""  # lines
    part_classes: Collection[str] = ()  # diffusers classes that read single files


def _call_of(
    recorded: Recorded,
    source: Source,
    spec: PipelineSpec,
    components: Collection[Component],
    setup: Setup,
    arguments: Mapping[str, Any],
) -> _Call:
    """Return the call. A modular pipeline loads just the model's components, from the places in its index."""
    modular, safe = is_modular(spec.class_name), None if recorded.model.allow_pickle else True
    networks = [component.name for component in components if component.has_weights]
    revision = f", revision={source.revision!r}" if source.revision else ""
    options = f"{revision}, dtype={for_diffusers(recorded.environment['dtype'])!r}"
    lines, part_classes = _parts(recorded, components)
    options += "".join(f", {name}={name}" for name in lines)
    options += f", use_safetensors={dict.fromkeys(networks, safe) if modular else safe}"
    if setup.quantization:
        options += f", quantization_config={setup.quantization}" + ".quant_mapping" * modular
    usual = "images" if spec.kind == "image" else "frames"
    pictures = next((name for name in PICTURES if name in spec.returns), usual)
    sound = next((name for name in SOUND if name in spec.returns), SOUND[0])
    first = "[0]" if pictures == "frames" or spec.has_layers else ""
    if not modular:
        return _Call(
            class_name=spec.class_name,
            loading="".join(lines.values()) + f"pipe = {spec.class_name}.from_pretrained(MODEL{options})",
            part_classes=part_classes,
            arguments=arguments,
            frames=f"output.{pictures}{first}",
            sound=f"output.{sound}",
        )
    from framefleet.pipeline.model.modular import SEEN, blank, guiding, without_scales

    pipe = blank(spec.class_name, spec.configs)
    output = next(name for name, seen in SEEN.items() if seen == pictures)
    guiders = [
        f"pipe.update_components({name}=pipe.{name}.new({keywords(changes)}))\n"
        for name, changes in guiding(pipe, arguments).items()
    ]
    return _Call(
        class_name=spec.class_name,
        loading=f"pipe = {spec.class_name}.from_pretrained(MODEL{revision})\n"
        f"pipe.load_components({[one.name for one in components]}, "
        f"pretrained_model_name_or_path=MODEL{options})",
        arguments=without_scales(pipe, arguments),
        frames=f"output.get({output!r}){first}",
        sound=f"output.get({sound!r})",
        guiders="".join(guiders),
    )


def _parts(recorded: Recorded, components: Collection[Component]) -> tuple[dict[str, str], set[str]]:
    """Return the lines that load components from single files, by component, and the classes they use."""
    files = open_parts(recorded.model.parts, recorded.model.storage_options)
    by_name = by_component(files, components)
    classes = {component.name: component for component in components}
    dtypes = for_diffusers(recorded.environment["dtype"])
    lines, names = {}, set()
    for name, file in by_name.items():
        place, revision = file.part.path, ""
        if file.part.revision:  # of the hub, from which diffusers takes a file by its page
            place = f"https://huggingface.co/{file.source.path}/blob/main/{file.file}"
            revision = f", revision={file.part.revision!r}"
        dtype = dtypes.get(name, dtypes["default"]) if isinstance(dtypes, Mapping) else dtypes
        packing = f", quantization_config={GGUF_CONFIG}(compute_dtype={dtype!r})" * file.is_gguf
        names |= {classes[name].class_name, *([GGUF_CONFIG] * file.is_gguf)}
        lines[name] = (
            f"{name} = {classes[name].class_name}.from_single_file({place!r}{revision}, config=MODEL, "
            f"subfolder={name!r}, torch_dtype={dtype!r}{packing})\n"
        )
    return lines, names


def _filled(
    recorded: Recorded,
    source: Source,
    call: _Call,
    choice: SchedulerChoice,
    setup: Setup,
    *,
    mode: PictureMode,
) -> str:
    environment, model = recorded.environment, recorded.model
    pictures = picture_calls(recorded, mode)
    io, pillow = IMPORTS if pictures else ("", "")
    numerics = numerics_of(model.options, threads=model.threads, device=model.device)
    isa, tf32 = environment.get(MAX_CPU_ISA.lower()), environment.get("tf32")
    variables = {**numerics.variables, **({MAX_CPU_ISA: isa} if isa else {})}
    codes = {name: pictures.get(name, repr(value)) for name, value in sorted(call.arguments.items())}
    arguments = "".join(f"    {name!r}: {code},\n" for name, code in codes.items())
    sorted_environment = sorted(environment.items())
    sha256 = {"FRAMES": recorded.record.frames_sha256, "AUDIO": recorded.record.audio_sha256}
    scheduler = ""
    if choice.class_name:
        overrides = "".join(f", {name}={value!r}" for name, value in choice.overrides.items())
        scheduler = f"pipe.scheduler = {choice.class_name}.from_config(pipe.scheduler.config{overrides})"
    record, checks = recorded.record, ""
    if record.frames_sha256 is not None:
        is_float = (record.frames_format or "").endswith("float32")
        pixels = '{}.astype("float32")' if is_float else '({} * 255).round().astype("uint8")'
        checks += FRAMES_CHECK.format(
            frames=pixels.format(call.frames),
            dtype="float32" if is_float else "uint8",
            channels=4 if (record.frames_format or "").startswith("rgba") else 3,
        )
    if record.audio_sha256 is not None:
        channels, sample_rate = repr(record.audio_channels), repr(record.audio_sample_rate)
        checks += SOUND_CHECK.format(sound=call.sound, channels=channels, sample_rate=sample_rate)
    class_names: dict[str, list[str]] = {}  # by module: diffusers, or ours for what diffusers lacks
    for name in sorted({call.class_name, choice.class_name, *setup.classes, *call.part_classes} - {""}):
        class_names.setdefault(module_of(name), []).append(name)
    return TEMPLATE.format(
        row_id=recorded.record.row_id,
        framefleet=_in_comment(recorded.claim.framefleet),
        environment="\n".join(f"#   {_in_comment(f'{name} {value}')}" for name, value in sorted_environment),
        modules="".join(f"import {module}\n" for module in sorted(setup.modules)),
        imports="\n".join(
            f"from {module} import {', '.join(names)}" for module, names in sorted(class_names.items())
        ),
        model=source.path,
        model_digest=recorded.record.model_digest,
        loras=_loras(recorded),
        arguments=f"{{\n{arguments}}}",  # one to a line; floats keep every bit
        seed=repr(recorded.request.seed),
        digests="\n".join(f"{name}_SHA256 = {digest!r}" for name, digest in sha256.items() if digest),
        io=io,
        pillow=pillow,
        picture=FUNCTION.format(mode=mode).lstrip() + "\n" if pictures else "",
        os="import os\n" if variables else "",
        variables="".join(f"\nos.environ[{name!r}] = {value!r}" for name, value in variables.items()),
        numerics="\n".join(map(str, numerics.settings())),
        tf32=f"torch.backends.cuda.matmul.allow_tf32 = {bool(tf32)}\n" if tf32 is not None else "",
        loading=call.loading,
        guiders=call.guiders,
        setup="\n".join(setup.lines),
        scheduler=scheduler,
        checks=checks,
    )


def _in_comment(text: str) -> str:
    """Return text that cannot end a comment: on one line, with invisible characters escaped."""
    return repr(text)[1:-1]


def _loras(recorded: Recorded) -> str:
    """Return the lines that load the row's LoRAs and switch them on."""
    if not recorded.model.loras:
        return ""
    lines = []
    for name, lora in sorted(recorded.model.loras.items()):
        file = fetch_lora(name, lora, recorded.model.storage_options)
        lora = file.lora
        tensors = check_file_size(file.path) if file.path.suffix == SAFETENSORS else ()
        if any(ADAPTER_IN_NAME.search(tensor.name) for tensor in tensors):
            problem = f"the LoRA {name!r} of this row has weight names that diffusers may not load"
            raise JobError(problem, "use `framefleet replay` without --script")
        if "://" in lora.path:
            problem = f"the LoRA {name!r} of this row is at {lora.path}, and diffusers opens no URLs"
            raise JobError(problem, f"copy it to a file, and add {quoted('--lora', name + '=FILE')}")
        options: dict[str, Any] = {"weight_name": lora.file, "adapter_name": adapter_name(name)}
        if str(lora.file).endswith(SAFETENSORS):
            options["use_safetensors"] = True
        if lora.revision:
            options["revision"] = lora.revision
        if lora.component == "transformer_2":
            options["load_into_transformer_2"] = True
        call = f"pipe.load_lora_weights({lora.path!r}, {keywords(options)})"
        lines.append(f"{call}  # SHA-256 {lora.sha256}")
    names, weights = zip(*adapters_in(recorded.request.arguments), strict=True)
    lines += [
        f"pipe.set_adapters({list(names)!r}, {list(weights)!r})",
        "for part in pipe.components.values():",
        "    if isinstance(part, torch.nn.Module):",
        "        part.eval()  # adapters are made in training mode: a dropout would be on",
    ]
    return "".join(f"{line}\n" for line in lines)


def _is_plain_file(part: PartFile, component: Component, configs: Path) -> bool:
    """Whether diffusers' own `from_single_file` reads the file as it is. configs: the base's folder."""
    file = SingleFile(part.fetched(), part.is_gguf, part.where)
    if component.loader != "diffusers" or file.path.suffix not in FILE_FORMATS:
        return False
    prefix, expected = file.prefix(component, partial(blank_network, component, configs))
    return prefix in (expected, *LEFT_OUT)

"""Why a LoRA is not loaded, in words: what diffusers and peft say of it is made for their developers."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from peft import LoraConfig

from framefleet.pipeline.model.sources.leftovers import listed

# Of adapters that are not LoRAs: what their weights are called, and they themselves.
_OTHER_ADAPTERS = {
    "LoHa": re.compile(r"(^|\.)hada_(w[12]|t[12])"),
    "LoKr": re.compile(r"(^|\.)lokr_(w[12]|t2)"),
    "GLoRA": re.compile(r"\.[ab][12]\.weight$"),
    "OFT": re.compile(r"(^|\.|_)(oft_|boft_)"),
    "IA3": re.compile(r"(\.on_input|ia3_l)$|\.ia3_l\."),
    "VeRA": re.compile(r"(^|\.)vera_"),
    "Control LoRA": re.compile(r"^lora_controlnet$"),
    "a textual inversion": re.compile(r"^(emb_params|clip_[lg]|string_to_param\..*|<[^.]+>)$"),
}
USE_OTHER = "use a LoRA that was made for this model"
CONVERT = "convert it to a plain LoRA, or merge it into a copy of the model"
_INTO_COPY = (
    "put its words into a copy of the model: pipe = DiffusionPipeline.from_pretrained(MODEL); "
    "pipe.load_textual_inversion(FILE, token=WORD); pipe.save_pretrained(FOLDER)"
)
SAVE_WHOLE = (
    "save it in diffusers' or peft's own format, or use another; diffusers converts those of some programs "
    "only where they hold all layers"
)
SAVE_PREFIXED = (
    "if it is of this model, rename its weights: peft begins them with `base_model.model.`, diffusers with "
    "the part of the pipeline, e.g. `transformer.`"
)
# What a LoRA's own description may say besides peft's defaults. The rest makes it more than something added
# to what a layer returns, and some of it names modules that peft imports.
SAID = {
    *("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "lora_bias", "fan_in_fan_out"),
    *("rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "layers_to_transform"),
    *("alpha", "rank_dropout", "module_dropout", "rank_dropout_scale", "decompose_both", "decompose_factor"),
    *("use_effective_conv2d", "auto_mapping", "base_model_name_or_path", "revision", "peft_type"),
    *("task_type", "inference_mode", "peft_version", "layers_pattern"),
}
_PATTERNS = ("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern")
HARMLESS: tuple[Any, ...] = (None, True, False, "gaussian", "none", [], {})
MAX_WILDCARDS = 4  # each one more may take as many times longer as a name is long
_MAX_SHOWN, _MAX_SAID = 80, 200  # letters of a value, and of what a library says
# diffusers' converters count from the first block to the last. No network has as many.
MANY = re.compile(r"\d{6}")


def other_adapter(names: Collection[str]) -> tuple[str, str] | None:
    """Return (what it is, what to do) where the file is of another kind of adapter."""
    for kind, pattern in _OTHER_ADAPTERS.items():
        if own := [name for name in names if pattern.search(name)]:
            fix = _INTO_COPY if kind == "a textual inversion" else CONVERT
            return f"it holds weights of {kind} ({listed(own)}), which diffusers does not load there", fix
    return None


def told_by_library(error: Exception, names: Collection[str]) -> tuple[str, str]:
    """Return what an exception of a converter or of peft says of a file. names: of its weights."""
    if other := other_adapter(names):
        return other
    if isinstance(error, KeyError) and error.args:
        wanted = str(error.args[0])[:_MAX_SAID]
        return f"diffusers looks for {wanted} next to {listed(names)}, and it is not there", SAVE_WHOLE
    text = " ".join(str(error).split())
    words = {word.strip(".") for word in re.findall(r"[\w.-]+", text)}
    # Converters leave these out of names, and write points as underscores.
    prefixes = re.compile(r"(diffusion_model\.)?(lora_unet_)?(base_model\.model\.)?")
    if own := {n for n in names if words & {n, n.replace(".", "_"), prefixes.sub("", n, count=1)}}:
        return f"diffusers does not know what {listed(own)} is for", SAVE_WHOLE
    quotation = f" ({text[:_MAX_SAID]})" if text else ""
    return f"diffusers cannot read it{quotation}; it holds {listed(names) or 'no weights'}", SAVE_WHOLE


def changes_model(metadata: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what in a LoRA's own description would change rows that do not use it, or never end."""
    usual = LoraConfig().to_dict()
    for key, value in metadata.items():
        name = key.rpartition(".")[2]
        if name not in SAID and value not in HARMLESS and value != usual.get(name):
            reason = f"it is one that changes the model's own weights ({key} is {repr(value)[:_MAX_SHOWN]})"
            return reason, CONVERT
        patterns = [value] if isinstance(value, str) else value or ()
        for pattern in map(str, patterns if name in _PATTERNS else ()):
            # One ends soon whatever it is tried on where nothing repeated is repeated.
            if len(re.findall(r"[*+{?]", pattern)) > MAX_WILDCARDS or re.search(r"\)[*+{?]", pattern):
                shown = repr(value)[:_MAX_SHOWN]
                reason = f"{key} is a pattern too complicated to be tried on every name: {shown}"
                return reason, "list the layers in its config"
    return None

"""What may be bad, each with the function that makes one case of it."""

from __future__ import annotations

from tools.fuzz.case import Make
from tools.fuzz.kinds.cells import cells
from tools.fuzz.kinds.checkpoints import checkpoints
from tools.fuzz.kinds.dialects import dialects
from tools.fuzz.kinds.jobs import job_files, job_sets, job_texts
from tools.fuzz.kinds.loras import lora_keys, loras
from tools.fuzz.kinds.marks import marks
from tools.fuzz.kinds.media import media
from tools.fuzz.kinds.models import models
from tools.fuzz.kinds.outputs import outputs
from tools.fuzz.kinds.packings import gguf_headers, packings
from tools.fuzz.kinds.pages import pages
from tools.fuzz.kinds.single_files import single_files
from tools.fuzz.kinds.tables import table_bytes, table_types
from tools.fuzz.kinds.traces import traces
from tools.fuzz.kinds.trainings import trainings

KINDS: dict[str, Make] = {
    "job files": job_files,
    "job texts": job_texts,
    "job options": job_sets,
    "table bytes": table_bytes,
    "table types": table_types,
    "table dialects": dialects,
    "cells": cells,
    "media": media,
    "model folders": models,
    "single files": single_files,
    "packed configs": packings,
    "GGUF headers": gguf_headers,
    "LoRAs": loras,
    "LoRA keys": lora_keys,
    "outputs": outputs,
    "checkpoints": checkpoints,
    "trainings": trainings,
    "weights of marks": marks,
    "traced files": traces,
    "served pages": pages,
}

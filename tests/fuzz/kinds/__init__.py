"""What may be bad, each with the function that makes one case of it."""

from __future__ import annotations

from tests.fuzz.case import Make
from tests.fuzz.kinds.cells import cells
from tests.fuzz.kinds.checkpoints import checkpoints
from tests.fuzz.kinds.jobs import job_files, job_sets, job_texts
from tests.fuzz.kinds.loras import loras
from tests.fuzz.kinds.media import media
from tests.fuzz.kinds.models import models
from tests.fuzz.kinds.outputs import outputs
from tests.fuzz.kinds.tables import table_bytes, table_types
from tests.fuzz.kinds.trainings import trainings

KINDS: dict[str, Make] = {
    "job files": job_files,
    "job texts": job_texts,
    "job options": job_sets,
    "table bytes": table_bytes,
    "table types": table_types,
    "cells": cells,
    "media": media,
    "model folders": models,
    "LoRAs": loras,
    "outputs": outputs,
    "checkpoints": checkpoints,
    "trainings": trainings,
}

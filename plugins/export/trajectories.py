"""Export clips with the arrays that `keep:` stored: latents of steps, noise levels, text embeddings.

Each array becomes a .npy file, as a member of a tar or a cell of a Parquet file. Nothing is computed again.
NumPy has no bfloat16, so such values become float32.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors import SafetensorError

from framefleet.api.commands import Watch
from framefleet.api.errors import JobError, count_text, not_ours
from framefleet.api.exports import Selection, ShardWriter
from framefleet.api.outputs import RECORDS, Output, kept_in
from framefleet.plugins.export.formats import ParquetShard, TarShard

LATENTS, STEPS, EMBEDDINGS = "latents", "latent_steps", "text_embeddings"
# All arrays but the embeddings, which may be several. STEPS: of LATENTS, from 0, the noise.
_ARRAYS = (LATENTS, STEPS, "timesteps", "sigmas", "log_probs")
# Allowed names of arrays, as they become names of tar members.
_OTHER_ARRAY = re.compile(rf"timesteps|sigmas|log_probs|{EMBEDDINGS}\.\d{{1,4}}\.\d{{1,4}}", re.ASCII)
_OPTIONAL = ("sigmas", EMBEDDINGS, "log_probs")


def check_kept(selection: Selection, watch: Watch) -> None:
    """Report which arrays are missing. Raises JobError if no row has latents."""
    kept: Counter[str] = Counter()
    num_rows = 0
    for table in selection.rows("extra_outputs"):
        for text in table["extra_outputs"].to_pylist():
            steps, num_rows = kept_in(text), num_rows + 1
            if steps.latents:
                kept.update([LATENTS, *(name for name in _OPTIONAL if getattr(steps, name))])
    fix = "finished rows are not rendered again for it, so choose another output"
    if num_rows and not kept[LATENTS]:
        problem = "no chosen row has stored latents"
        raise JobError(problem, f"add `keep: {{latents: all}}` to the job; {fix}")
    if num_left := num_rows - kept[LATENTS]:
        watch.say(f"note: left out: {count_text(num_left, 'clip')} without stored latents")
    if lacking := [name for name in _OPTIONAL if kept[name] < kept[LATENTS]]:
        settings = ", ".join(f"{name}: true" for name in lacking)
        watch.say(
            f"note: not stored for every row: {', '.join(lacking)}; `keep: {{{settings}}}` stores them; {fix}"
        )


def arrays_of(content: bytes, row_id: str) -> dict[str, npt.NDArray[Any]]:
    """Return a row's arrays by name, from its file in extras/.

    latents: (steps, ...), without a batch dimension. text_embeddings.CALL.PLACE: the value at this place of
    what a call of `encode_prompt` returned. Raises JobError for a file that `keep` did not write.
    """
    from safetensors.torch import load  # imports torch; the NumPy version has no bfloat16

    try:
        tensors = load(content)
        steps = {int(name.partition(".")[2]): name for name in tensors if name.startswith(f"{LATENTS}.")}
        num_steps = len(tensors["timesteps"])
        by_step = {step + (num_steps + 1) * (step < 0): tensors[name] for step, name in steps.items()}
        numbers = sorted(by_step)
        latents = np.concatenate([_array(by_step[step]) for step in numbers])
        names = sorted(filter(_OTHER_ARRAY.fullmatch, tensors), key=_order)
        others = {name: _array(tensors[name]) for name in names}
    except (SafetensorError, ValueError, LookupError, TypeError) as error:
        raise not_ours(RECORDS, f"the arrays of {row_id} are no trajectory: {error}") from None
    return {LATENTS: latents, STEPS: np.array(numbers), **others}


def _order(name: str) -> list[str]:
    return [part.zfill(4) for part in name.split(".")]


def _array(tensor: Any) -> npt.NDArray[Any]:
    # float16 stays.
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def _npy(array: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


class _WithArrays(ShardWriter):
    @classmethod
    def prepare(cls, selection: Selection, output: Output, options: Mapping[str, Any], watch: Watch) -> None:
        check_kept(selection, watch)
        selection.with_extras()


class TrajectoryTar(_WithArrays, TarShard):
    """Samples for `webdataset` with `<row_id>.latents.npy` and so on next to the clip."""

    def add_files(self, rows: pa.Table, files: Sequence[Sequence[bytes]]) -> None:
        for number, ((clip, extras), row_id) in enumerate(
            zip(files, rows["row_id"].to_pylist(), strict=True)
        ):
            self.add(rows.slice(number, 1), [clip])
            for name, array in arrays_of(extras, row_id).items():
                self.write_member(f"{row_id}.{name}.npy", _npy(array))


class TrajectoryParquet(_WithArrays, ParquetShard):
    """A Parquet file with columns of .npy bytes: `latents` and so on, and a list in `text_embeddings`."""

    taken: ClassVar[Sequence[str]] = (*_ARRAYS, EMBEDDINGS)

    def add_files(self, rows: pa.Table, files: Sequence[Sequence[bytes]]) -> None:
        table = self.table_of(rows, [clip for clip, _ in files])
        row_ids = rows["row_id"].to_pylist()
        arrays = [arrays_of(extras, row_id) for (_, extras), row_id in zip(files, row_ids, strict=True)]
        for name in _ARRAYS:
            cells = [_npy(of_row[name]) if name in of_row else None for of_row in arrays]
            table = table.append_column(name, pa.array(cells, pa.binary()))
        embeddings = [
            [_npy(array) for name, array in of_row.items() if name.startswith(f"{EMBEDDINGS}.")] or None
            for of_row in arrays
        ]
        self.write_table(table.append_column(EMBEDDINGS, pa.array(embeddings, pa.list_(pa.binary()))))

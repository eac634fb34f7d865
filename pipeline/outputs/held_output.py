"""In: an output, and the right to write to it. Out: its parts written again, merged, or moved away.

For commands that change what is committed, while no job adds to it. Whenever a kill comes, each row is in one
part that counts, or in two of which one counts; the next driver deletes what is left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pyarrow as pa

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.layout import DAMAGED, RECORDS
from framefleet.pipeline.outputs.output_files import OutputFiles
from framefleet.pipeline.outputs.parts.part_file import JOB, is_readable, metadata_of, to_parquet
from framefleet.pipeline.outputs.parts.parts import replace_part
from framefleet.pipeline.outputs.parts.pending_clips import disown, intent_to_sweep
from framefleet.pipeline.outputs.parts.seals import MergingHold, Part, new_run, numbered_run, part_path

_MAX_BYTES = 1 << 30  # as for a part


@dataclass(slots=True)
class HeldOutput(OutputFiles):
    """An output whose lock this process has. What writes raises StoreError once another process has it."""

    hold: MergingHold
    _run: str = field(default="", init=False)  # of parts in place of others
    _num_replaced: int = field(default=0, init=False)
    _merged: tuple[str, pa.Schema, int] | None = field(default=None, init=False)  # run, columns, parts
    _num_merging_runs: int = field(default=0, init=False)

    def delete(self, paths: Sequence[str]) -> None:
        self.hold.check()
        self.store.delete_many(paths)

    def job_of(self, part: Part) -> str | None:
        """Return the text of job.json that a part repeats."""
        return metadata_of(self.store, part.path).get(JOB)

    def rewrite(self, part: Part, table: pa.Table, *, job: str | None = None) -> None:
        """Write a part again, in the same place in their order: of two that name a row, the later one counts.

        job: the text of job.json to repeat, if not the same. Call `hold.seal` when all are written.
        """
        metadata = metadata_of(self.store, part.path)
        content = to_parquet(table, metadata if job is None else metadata | {JOB: job})
        self.hold.check()
        if not part.digest:
            self.store.write(part.path, content)
            return
        path = part_path(str(PurePosixPath(part.path).parent), part.run, part.number, content)
        if path != part.path:
            self.store.create(path, content)
            self.store.delete(part.path)

    def take_out(self, path: str, row_ids: Collection[str]) -> None:
        """Replace a part by a newer one without these rows, so that they are rendered again."""
        self._run = self._run or new_run(self.hold.epoch)
        self._num_replaced += 1
        replace_part(self.store, path, row_ids, run=self._run, number=self._num_replaced, hold=self.hold)

    def merge(self, parts: Sequence[Part], table: pa.Table) -> bool:
        """Store the rows of parts as one part, make it count instead of them by one write; delete them.

        Returns whether it did: not if the one part would unpack to more than a part may.
        """
        job = self.job()  # of the newest part, as the one part may become the newest
        content = to_parquet(table, {JOB: job} if job else {})
        if not is_readable(content):
            return False
        run, schema, number = self._merged or ("", None, 0)
        if schema is None or not table.schema.equals(schema):  # all parts of a run have the same columns
            # Its name sorts after those merged before, and before all others of its epoch, as its rows are
            # from earlier parts.
            self._num_merging_runs += 1
            run, schema, number = numbered_run(self.hold.epoch, self._num_merging_runs), table.schema, 0
            self.hold.merged((), run=run, count=0)
        number += 1
        self._merged = run, schema, number
        self.hold.check()
        self.store.create(part_path(RECORDS, run, number, content), content)
        self.hold.merged(parts, run=run, count=number)
        self.delete([part.path for part in parts])
        return True

    def set_aside(self, path: str) -> None:
        """Move a file into damaged/."""
        if self.store.exists(path) and self.store.stat(path).size > _MAX_BYTES:  # a link may lead to nothing
            problem = f"{self.store.url_of(path)} has more than {_MAX_BYTES:,} bytes, and is not framefleet's"
            raise JobError(problem, "move it out of the output")
        self.hold.check()
        self.store.move(path, f"{DAMAGED}/{path}")

    def sweep_later(self, files: Iterable[tuple[str, str]]) -> None:
        """Let files be swept once the records of their rows name others. files: path and row_id of each."""
        disown(self.store, {intent_to_sweep(path, row_id) for path, row_id in files})

"""Rows that are added to an output's table while its job runs: checked, and taken after all others."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import PurePosixPath

from framefleet.cluster.driver.lock import DriverLock
from framefleet.cluster.driver.work import Added
from framefleet.doors import More
from framefleet.jobs.render.lanes import plan_lanes
from framefleet.jobs.render.resolve import ResolvedJob, added_in, with_added
from framefleet.jobs.render.row_parts import remember_survey, write_rows
from framefleet.jobs.render.survey import Survey, survey_rows, write_invalid
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import TableError, UserError
from framefleet.pipeline.outputs.parts.parts import tables_by_part
from framefleet.pipeline.outputs.parts.records import FIRST_FIELDS, fields_named
from framefleet.pipeline.outputs.parts.seals import new_run
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.row_ids import first_positions_of, ids_of
from framefleet.pipeline.rows.tables.table import Table

log = logging.getLogger(__name__)


class Additions:
    """Takes what `framefleet add` puts into the output, or what a runner does."""

    def __init__(
        self,
        resolved: ResolvedJob,
        survey: Survey,
        index: RowIndex,
        lock: DriverLock,
        more: More | None = None,
    ) -> None:
        """survey, index: of the table, as it was until then. more: the runner's, if it adds rows."""
        self._resolved, self._survey, self._index, self._lock = resolved, survey, index, lock
        self._more = more
        self._table = resolved.table if isinstance(resolved.table, Table) else None
        sources = self._table.sources if self._table else ()
        self._seen = {PurePosixPath(source.path).name for source in sources}
        lock.promise(path for path in added_in(resolved.store) if PurePosixPath(path).name in self._seen)

    def take(self, num_rows: int = 0) -> Added | None:
        """Take the rows of the oldest file that is new; None where there is none. num_rows: as in `More`.

        One that cannot be taken is left to the next run, which says so too.
        """
        if self._table is None:
            return None
        if self._more:  # a runner adds rows, and takes in all new files
            files = [*self._new_files()]
            try:
                added_path = self._more(num_rows)
            except UserError as error:
                for file in files:
                    _warn(file, error)
                return None
            self._lock.promise(files)
            return self._taken(added_path) if added_path else None
        for path in self._new_files():
            try:
                added = self._taken(path)
            except TableError as error:
                _warn(path, error)
            else:
                self._lock.promise([path])
                return added
        return None

    def _new_files(self) -> Iterator[str]:
        for path in added_in(self._resolved.store):
            if (name := PurePosixPath(path).name) not in self._seen:
                self._seen.add(name)
                yield path

    def _taken(self, path: str) -> Added:
        assert self._table is not None
        table = with_added(self._table, self._resolved.job, [path])
        first, index = self._survey.num_rows, self._index
        resolved = replace(self._resolved, table=table)
        with closing(RowIndex()) as new:  # so that a file that turns out to be damaged leaves nothing
            survey = survey_rows(resolved, new, Callback(), start=first)
            self._lock.check()
            rows = new.row_ids_in(first, survey.num_rows)
            index.add(rows, new.lanes_at([position for position, _ in rows]))
            index.leave_out(new.left_out_in(first, survey.num_rows))
        for line in survey.invalid_lines():
            log.warning("%s: %s", path, line)
        self._table, self._resolved = table, resolved
        self._survey += survey
        fields = fields_named(FIRST_FIELDS, "row_id", "row_indices")
        num_done = sum(
            self._index.mark_done(
                ids_of(records["row_id"]), first_positions_of(records["row_indices"]), since=first
            )
            for _, records in tables_by_part(self._resolved.store, fields)
        )
        write_rows(resolved, index, self._lock, start=first)
        remember_survey(resolved, self._survey)
        if resolved.job.on_invalid == "skip":
            write_invalid(resolved, index, run=new_run(self._lock.epoch), start=first)
        return Added(
            table=table,
            lanes=plan_lanes(resolved, index, self._survey),
            num_new=index.render_added(first),
            num_done=num_done,
        )


def _warn(path: str, error: UserError) -> None:
    log.warning("%s is not rendered by this run: %s (%s)", path, error.problem, error.fix)

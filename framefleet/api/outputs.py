"""An output: its records, files and failures, conditions on them, and the right to change it."""

from typing import TYPE_CHECKING

from framefleet.lazy_names import lazy_names

if TYPE_CHECKING:
    from framefleet.cluster.driver.lock import DriverLock as DriverLock
    from framefleet.pipeline.outputs.frames.result import kept_in as kept_in
    from framefleet.pipeline.outputs.held_output import HeldOutput as HeldOutput
    from framefleet.pipeline.outputs.layout import (
        CLAIM as CLAIM,
        EXTRAS as EXTRAS,
        FAILURES as FAILURES,
        RECORDS as RECORDS,
        ROWS as ROWS,
        dated as dated,
        preview_path as preview_path,
        recorded_path as recorded_path,
    )
    from framefleet.pipeline.outputs.output import (
        HOW as HOW,
        MAX_CLIP_BYTES as MAX_CLIP_BYTES,
        Output as Output,
        outputs_in as outputs_in,
    )
    from framefleet.pipeline.outputs.output_files import OutputFiles as OutputFiles, Part as Part
    from framefleet.pipeline.outputs.parts.parts import rows_of as rows_of
    from framefleet.pipeline.outputs.parts.record_tables import fix_of_missing as fix_of_missing
    from framefleet.pipeline.outputs.parts.records import (
        FAILURE_FIELDS as FAILURE_FIELDS,
        RECORD_FIELDS as RECORD_FIELDS,
        ROW_FIELDS as ROW_FIELDS,
        ROW_ID as ROW_ID,
        Record as Record,
        told_arguments as told_arguments,
    )
    from framefleet.pipeline.outputs.query import (
        check_where as check_where,
        columns_in as columns_in,
        rows_where as rows_where,
    )
    from framefleet.pipeline.outputs.row_states import FailedRow as FailedRow, OutputCounts as OutputCounts
    from framefleet.pipeline.outputs.stores.object_store import Stored as Stored
    from framefleet.pipeline.outputs.stores.store import (
        Store as Store,
        read_as as read_as,
        read_json as read_json,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)

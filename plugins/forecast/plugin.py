"""What `framefleet plan` says of memory, and with `--hollow` and `--probe` of errors, time and price."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from framefleet.api import Planner, Plugin

if TYPE_CHECKING:
    from framefleet.jobs.plan.plan import PlanOptions, Probed
    from framefleet.jobs.render.resolve import ResolvedJob
    from framefleet.jobs.render.survey import Survey
    from framefleet.jobs.show.watch import Watch
    from framefleet.pipeline.model.specs.spec import PipelineSpec
    from framefleet.pipeline.rows.identity import Shapes
    from framefleet.pipeline.rows.tables.index import RowIndex
    from framefleet.plugins.forecast.prediction import Prediction
    from framefleet.plugins.memory.memory import Memory


class Forecast(Planner):
    def memory(self, resolved: ResolvedJob, name: str, survey: Survey, wanted: PlanOptions) -> Memory:
        from framefleet.plugins.forecast.largest_row import memory_of

        return memory_of(resolved, name, survey, wanted)

    def call_pipeline(
        self, shapes: Shapes, spec: PipelineSpec, folder: Path, files: Sequence[str], *, recipes: str | None
    ) -> Probed:
        from framefleet.plugins.forecast.hollow import probe_shapes

        return probe_shapes(shapes, spec, folder, files, recipes=recipes)

    def predict(
        self, resolved: ResolvedJob, index: RowIndex, watch: Watch, *, num_audits: float
    ) -> Prediction:
        from framefleet.plugins.forecast.forecast import predict_job  # torch, which not every plan needs

        return predict_job(resolved, index, watch, num_audits=num_audits)


PLUGIN = Plugin(planners=["framefleet.plugins.forecast.plugin:Forecast"])

"""Render a table of prompts into clips and records that can be rendered again, bit for bit.

    import framefleet

    model = framefleet.load_model("/models/Wan2.1-T2V-1.3B-Diffusers")
    for clip in framefleet.Renderer(model).render([framefleet.Request(arguments={"prompt": "a red ball"})]):
        ...

Names are imported when first used: `import framefleet` loads neither torch nor Ray.
"""

from __future__ import annotations

from importlib import import_module
from types import FunctionType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from framefleet.cluster.driver.progress import Progress, Summary
    from framefleet.jobs.control.add import add
    from framefleet.jobs.control.control import pause, resume, stop
    from framefleet.jobs.job.schema import job_schema
    from framefleet.jobs.keep.repair.repair import repair
    from framefleet.jobs.keep.replay.recorded_row import Given
    from framefleet.jobs.keep.replay.replay import replay
    from framefleet.jobs.keep.replay.script import replay_script
    from framefleet.jobs.keep.verify.verify import verify
    from framefleet.jobs.look.failures import failures
    from framefleet.jobs.look.status.status import Status, status
    from framefleet.jobs.plan.plan import JobPlan, plan
    from framefleet.jobs.render.render import render, retry
    from framefleet.pipeline.errors import (
        AuthorityError,
        BrokenWorker,
        EndpointError,
        FleetError,
        FramefleetError,
        InputError,
        JobError,
        ModelError,
        NoFile,
        OutOfMemory,
        OutputInUse,
        PluginError,
        RecipeError,
        RenderError,
        RowError,
        ServiceError,
        StoreConflict,
        StoreError,
        TableError,
        UserError,
    )
    from framefleet.pipeline.model.load_model import load_model
    from framefleet.pipeline.model.model import Model
    from framefleet.pipeline.outputs.clips import Clip, Failure
    from framefleet.pipeline.outputs.frames.result import KeptSteps
    from framefleet.pipeline.outputs.output import Output, open_output
    from framefleet.pipeline.outputs.row_states import FailedRow, OutputCounts
    from framefleet.pipeline.outputs.stores.store import Store
    from framefleet.pipeline.recipes.recipe import recipe
    from framefleet.pipeline.render.audit.schedule import Audit
    from framefleet.pipeline.render.checkpoints.checkpoint import HalfDone
    from framefleet.pipeline.render.fused.batching import Batching
    from framefleet.pipeline.render.renderer import Renderer
    from framefleet.pipeline.render.scheduler_steps import step_log_prob
    from framefleet.pipeline.request import Request
    from framefleet.pipeline.rows.inputs.access import Inputs
    from framefleet.plugins.compact.command import compact
    from framefleet.plugins.demo.demo import demo
    from framefleet.plugins.deploy.submission import logs, submit
    from framefleet.plugins.doctor.doctor import Diagnosis, doctor
    from framefleet.plugins.doctor.machine import CheckResult
    from framefleet.plugins.export.export import export
    from framefleet.plugins.export.records import read_records
    from framefleet.plugins.marks.trace import Traced, trace
    from framefleet.plugins.models.models import ModelFiles, ModelInfo, lock_model, model_info, verify_model
    from framefleet.plugins.pack.pack import pack
    from framefleet.plugins.pages.gallery.gallery import gallery
    from framefleet.plugins.pages.gallery.serve import GalleryServer
    from framefleet.plugins.pages.report.live_page import StatusServer
    from framefleet.plugins.pages.report.report import report
    from framefleet.plugins.pages.report.values import Report
    from framefleet.plugins.pages.sheet.sheet import Drawn, grid, sheet
    from framefleet.plugins.ports.conversion.convert import Converted, convert_model
    from framefleet.plugins.rollouts.warm_fleet import WarmFleet, fleet
    from framefleet.plugins.scores.score_output import score
    from framefleet.plugins.train.plan import TrainPlan, plan_training
    from framefleet.plugins.train.train import train
    from framefleet.plugins.until.acceptance import Acceptance, acceptance
    from framefleet.plugins.words.answers import judge
    from framefleet.plugins.words.prompts import prompts

__version__ = "0.1.0"

__all__ = [
    "Acceptance",
    "Audit",
    "AuthorityError",
    "Batching",
    "BrokenWorker",
    "CheckResult",
    "Clip",
    "Converted",
    "Diagnosis",
    "Drawn",
    "EndpointError",
    "FailedRow",
    "Failure",
    "FleetError",
    "FramefleetError",
    "GalleryServer",
    "Given",
    "HalfDone",
    "InputError",
    "Inputs",
    "JobError",
    "JobPlan",
    "KeptSteps",
    "Model",
    "ModelError",
    "ModelFiles",
    "ModelInfo",
    "NoFile",
    "OutOfMemory",
    "Output",
    "OutputCounts",
    "OutputInUse",
    "PluginError",
    "Progress",
    "RecipeError",
    "RenderError",
    "Renderer",
    "Report",
    "Request",
    "RowError",
    "ServiceError",
    "Status",
    "StatusServer",
    "Store",
    "StoreConflict",
    "StoreError",
    "Summary",
    "TableError",
    "Traced",
    "TrainPlan",
    "UserError",
    "WarmFleet",
    "acceptance",
    "add",
    "compact",
    "convert_model",
    "demo",
    "doctor",
    "export",
    "failures",
    "fleet",
    "gallery",
    "grid",
    "job_schema",
    "judge",
    "load_model",
    "lock_model",
    "logs",
    "model_info",
    "open_output",
    "pack",
    "pause",
    "plan",
    "plan_training",
    "prompts",
    "read_records",
    "recipe",
    "render",
    "repair",
    "replay",
    "replay_script",
    "report",
    "resume",
    "retry",
    "score",
    "sheet",
    "status",
    "step_log_prob",
    "stop",
    "submit",
    "trace",
    "train",
    "verify",
    "verify_model",
]

# By module: its names. All others are errors.
_NAMES = {
    "framefleet.cluster.driver.progress": ("Progress", "Summary"),
    "framefleet.jobs.control.add": ("add",),
    "framefleet.jobs.control.control": ("pause", "resume", "stop"),
    "framefleet.jobs.job.schema": ("job_schema",),
    "framefleet.jobs.keep.repair.repair": ("repair",),
    "framefleet.jobs.keep.replay.recorded_row": ("Given",),
    "framefleet.jobs.keep.replay.replay": ("replay",),
    "framefleet.jobs.keep.replay.script": ("replay_script",),
    "framefleet.jobs.keep.verify.verify": ("verify",),
    "framefleet.jobs.look.failures": ("failures",),
    "framefleet.jobs.look.status.status": ("Status", "status"),
    "framefleet.jobs.plan.plan": ("JobPlan", "plan"),
    "framefleet.jobs.render.render": ("render", "retry"),
    "framefleet.pipeline.model.load_model": ("load_model",),
    "framefleet.pipeline.model.model": ("Model",),
    "framefleet.pipeline.outputs.clips": ("Clip", "Failure"),
    "framefleet.pipeline.outputs.frames.result": ("KeptSteps",),
    "framefleet.pipeline.outputs.output": ("Output", "open_output"),
    "framefleet.pipeline.outputs.row_states": ("FailedRow", "OutputCounts"),
    "framefleet.pipeline.outputs.stores.store": ("Store",),
    "framefleet.pipeline.recipes.recipe": ("recipe",),
    "framefleet.pipeline.render.audit.schedule": ("Audit",),
    "framefleet.pipeline.render.checkpoints.checkpoint": ("HalfDone",),
    "framefleet.pipeline.render.fused.batching": ("Batching",),
    "framefleet.pipeline.render.renderer": ("Renderer",),
    "framefleet.pipeline.render.scheduler_steps": ("step_log_prob",),
    "framefleet.pipeline.request": ("Request",),
    "framefleet.pipeline.rows.inputs.access": ("Inputs",),
    "framefleet.plugins.compact.command": ("compact",),
    "framefleet.plugins.demo.demo": ("demo",),
    "framefleet.plugins.deploy.submission": ("logs", "submit"),
    "framefleet.plugins.doctor.doctor": ("Diagnosis", "doctor"),
    "framefleet.plugins.doctor.machine": ("CheckResult",),
    "framefleet.plugins.export.export": ("export",),
    "framefleet.plugins.export.records": ("read_records",),
    "framefleet.plugins.marks.trace": ("Traced", "trace"),
    "framefleet.plugins.models.models": (
        "ModelFiles",
        "ModelInfo",
        "lock_model",
        "model_info",
        "verify_model",
    ),
    "framefleet.plugins.pack.pack": ("pack",),
    "framefleet.plugins.pages.gallery.gallery": ("gallery",),
    "framefleet.plugins.pages.gallery.serve": ("GalleryServer",),
    "framefleet.plugins.pages.report.live_page": ("StatusServer",),
    "framefleet.plugins.pages.report.report": ("report",),
    "framefleet.plugins.pages.report.values": ("Report",),
    "framefleet.plugins.pages.sheet.sheet": ("Drawn", "grid", "sheet"),
    "framefleet.plugins.ports.conversion.convert": ("Converted", "convert_model"),
    "framefleet.plugins.rollouts.warm_fleet": ("WarmFleet", "fleet"),
    "framefleet.plugins.scores.score_output": ("score",),
    "framefleet.plugins.train.plan": ("TrainPlan", "plan_training"),
    "framefleet.plugins.train.train": ("train",),
    "framefleet.plugins.until.acceptance": ("Acceptance", "acceptance"),
    "framefleet.plugins.words.answers": ("judge",),
    "framefleet.plugins.words.prompts": ("prompts",),
}
_HOMES = dict.fromkeys(__all__, "framefleet.pipeline.errors")
for _module, _own in _NAMES.items():
    _HOMES |= dict.fromkeys(_own, _module)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    if not isinstance(value, FunctionType):
        return value
    from framefleet.pipeline.guards.arguments import check_arguments_once

    return check_arguments_once(value)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Requests in, clips out, as they finish: the renderer of one process and one model, without Ray."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial

import torch
from tqdm.auto import tqdm

from framefleet.pipeline.errors import message_of
from framefleet.pipeline.guards.mistakes import expected
from framefleet.pipeline.guards.redaction import public_message
from framefleet.pipeline.memory import free_memory, is_out_of_memory, on_device, room_bytes
from framefleet.pipeline.metrics import WORKER_SECONDS
from framefleet.pipeline.model.guardrail import Blocked, Guardrail
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.model.options.attention import AttentionChanged
from framefleet.pipeline.model.options.step_cache import StepCache
from framefleet.pipeline.model.registry import numerics_of_code
from framefleet.pipeline.model.snapshot import Loaded
from framefleet.pipeline.outputs.clips import Clip, Outcome
from framefleet.pipeline.outputs.frames.result import KeptSteps, Rendered
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.recipes.catalog import KnownRecipes
from framefleet.pipeline.recipes.recipe import Recipe, RecipeSet
from framefleet.pipeline.recipes.second_model import Declared, SecondModels, open_second_models
from framefleet.pipeline.render.audit.auditor import Auditor, PlainCalls
from framefleet.pipeline.render.audit.schedule import Audit, ComputeTime, is_affordable
from framefleet.pipeline.render.audit.verdict import DIFFERED, Audited
from framefleet.pipeline.render.checkpoints.checkpoint import HalfDone
from framefleet.pipeline.render.checkpoints.handover import HandOver, tell_begun_again
from framefleet.pipeline.render.clock import Charges, Clock
from framefleet.pipeline.render.findings import Findings, surroundings
from framefleet.pipeline.render.findings_storage import Places
from framefleet.pipeline.render.fused.batcher import Batcher, RowTask, as_in_pipelines
from framefleet.pipeline.render.fused.batching import Batching
from framefleet.pipeline.render.fused.forwards import Forwards, StateWatch, second_try
from framefleet.pipeline.render.fused.joint_calls import JointError, joint_at_work
from framefleet.pipeline.render.fused.row_thread import CameBack, RowThread, networks_at_home
from framefleet.pipeline.render.joint_rows import ENOUGH, JointRows
from framefleet.pipeline.render.lora_layers import LoraLayers
from framefleet.pipeline.render.prompt_readers import PromptReaders
from framefleet.pipeline.render.recipe_call import RecipeCall, Tails
from framefleet.pipeline.render.rehearsal import Rehearsal
from framefleet.pipeline.render.row_queue import RenderRow, RowQueue, clip_of, failure_of, with_frames
from framefleet.pipeline.render.text_encoders import Encoders, SharedCalls
from framefleet.pipeline.request import Request, one_step
from framefleet.pipeline.rows.identity import Identity
from framefleet.pipeline.rows.inputs.access import Inputs
from framefleet.pipeline.rows.inputs.arguments import ReadAhead
from framefleet.pipeline.rows.tables.request_checks import request_check

log = logging.getLogger(__name__)


class Renderer:
    """Renders requests with one model; rows share forwards and keep their bits.

    Not for several threads at once, nor for two renderers of one model at once.
    """

    def __init__(
        self,
        model: Model,
        batching: Batching | None = None,
        *,
        recipes: Mapping[str, Recipe] | None = None,
        inputs: Inputs | None = None,
        embeddings: Store | None = None,
        second_models: Mapping[str, Declared] | None = None,
        audit: Audit | None = None,
        probes: Store | None = None,
        keep: KeptSteps | None = None,
    ) -> None:
        """recipes: all that requests may name besides framefleet's own; without it they may name any
        `module:function`, which is then imported.
        inputs: where images and videos may lie; without it on this machine and at public URLs.
        embeddings: where outputs of text encoders are kept; the encoders are then on the GPU only while
        they are called, until `render` ends or `cancel` brings them back.
        second_models: by the names that requests give them, each a path or a mapping with the fields of
        `ModelSettings`; the one that was used last is kept on the GPU.
        audit: how often rows are rendered again by plain calls, and compared: see `take_audits`. There are no
        audits in fast mode.
        probes: where measurements of batch sizes are kept, besides this machine's cache folder.
        keep: what of each row's steps goes into the extras of its clip.
        """
        self.model = expected(model, Model, "model", "give what framefleet.load_model returns")
        batching = Batching() if batching is None else batching
        self.batching = expected(batching, Batching, "batching", "give framefleet.Batching(...)")
        self._recipes = known_recipes = KnownRecipes(recipes)
        self._recipe_set = RecipeSet()
        numerics = model.settings.numerics(self.batching.mode) | numerics_of_code(model.spec.class_name)
        self._identity = Identity(model_digest=model.digest, numerics=numerics, recipes=known_recipes)
        others = SecondModels(open_second_models(second_models or {}), main=model)
        inputs = inputs or Inputs([os.getcwd(), os.sep])
        self._check = request_check(model, known_recipes, others, inputs, self._identity)
        self.clock = Clock(model.environment["device"])
        if model.settings.options.compile:
            self.clock.watch_compiler()
        self._second_try = second_try(self._wait)
        keep, options = keep or KeptSteps(), model.settings.options
        ahead = ReadAhead(inputs.read)
        self._tails = Tails(
            lambda: self._batcher.num_away,
            is_able=not (options.offload or options.compile or keep),  # these serve other rows too
        )
        self._call = RecipeCall(
            model, known_recipes, others, ahead, self.clock, self._second_try, keep, self._tails
        )
        self._loras = LoraLayers(model.networks() if model.settings.loras else {})
        spending = self.clock.spending
        self._encoders = Encoders(
            model, self._loras, self._recipe_set, numerics=numerics, kept_in=embeddings, spending=spending
        )
        self._shared_calls = SharedCalls(model, self.batching.mode, self._encoders, self._loras, self.clock)
        self._watch = StateWatch(self._loras.modules, model.denoisers(), model.networks().values())
        self._loaded = Loaded(model, self._watch.before_rows)
        self._encoders.is_untouched = self._loaded.is_untouched
        self._expected: Collection[str] = ()  # what a step cache changes in the networks
        self._plain = PlainCalls(model, self._call, self._loras, self._encoders, self._loaded)
        audit = audit or Audit()
        self._is_audited = audit.is_on(self.batching.mode)
        self._audit_share = audit.limit
        self._auditor = Auditor(
            audit.odds() if self._is_audited else None,
            partial(self.clock.around, "audit", "", self._judge),
            self._is_audit_affordable,
            lambda request: known_recipes[request.recipe].is_own,
        )
        self._cache = StepCache(options.cache, model.denoisers()) if options.cache else None
        is_shared = options.cache is None and (model.placer is None or model.placer.shares_forwards)
        if model.placer:
            model.placer.begin(is_exact=self.batching.mode == "exact")
        self._rows = RowQueue(self._auditor.apart, all_alone=not is_shared)
        self._hand_over = HandOver(model, self.batching, self._watch)
        self._prompts = PromptReaders(model.pipe.components.values())
        self._joint = JointRows(self._prompts, self._try)
        # A guardrail does not say which row it changed.
        has_guardrail = any(isinstance(part, Guardrail) for part in model.pipe.components.values())
        is_simple = self._tails.is_able and not model.placer and not has_guardrail
        self._may_join = self.batching.mode == "fast" and is_simple
        self._places = Places(probes, self.clock.spending) if self.batching.remember else None
        self._rehearsal = Rehearsal(model, self._places, self._plain_task)
        self._charges = Charges(self.clock)
        self._at_home: ExitStack | None = None  # once rows may be away
        self._learn_anew()

    def __repr__(self) -> str:
        return f"Renderer({self.model!r})"

    halt = None  # it begins each row that it is given

    @property
    def room_bytes(self) -> int:
        """Bytes of memory that a row has on its device; 0 on a CPU."""
        return room_bytes(self.model.environment["device"])

    def figures(self) -> Mapping[str, float]:
        return {}

    @property
    def num_active(self) -> int:
        """Rows submitted and not yet returned."""
        return len(self._rows)

    @property
    def room(self) -> int:
        """How many more rows are worth having under way now."""
        return self.capacity - len(self._rows)

    @property
    def capacity(self) -> int:
        """Rows worth having under way at once.

        Where larger forwards do not pay, one: rows that took turns would all be lost in a crash. Else twice
        those of a forward, so that forwards fill though rows of several kinds are mixed. A step cache would
        couple rows, and so would whatever a network keeps in itself: one. Rows that are away do not count.
        """
        reach = 1 if self._rows.all_alone else min(self._batcher.reach, self.batching.max_rows)
        return self._batcher.num_away + (1 if reach == 1 else 2 * reach)

    def render(self, requests: Iterable[Request], *, progress: bool | None = None) -> Iterator[Outcome]:
        """Yield a Clip or a Failure for each request, in the order they finish.

        progress: a bar on stderr; None: if that is a terminal. Requests are taken as there is room, so an
        endless generator is fine. Raises TableError for a request that the model cannot render as asked, and
        RecipeError for one of a second set of recipes: a renderer renders framefleet's own, or one of yours.
        Rows that are under way when the caller stops are forgotten.
        """
        source = enumerate(requests)
        is_open, num_forwards = True, 0
        total = len(requests) if isinstance(requests, Sized) else None
        is_off = None if progress is None else not progress  # None: unless stderr is a terminal
        # Redrawn seldom: a forward may take milliseconds, and so does a terminal.
        # No smoothing: with updates by 0, only a row's last forward would count as its time.
        bar = tqdm(total=total, unit="row", disable=is_off, mininterval=0.5, miniters=0, smoothing=0)
        try:
            while is_open or self.num_active:
                while is_open and self.room > 0:
                    index, request = next(source, (-1, None))
                    if request is None:
                        is_open = False
                    else:
                        self.submit(*self._check(request, index))
                ended = self.step()
                num_forwards += not ended
                bar.set_postfix_str(f"{self.num_active} under way, forwards: {num_forwards}", refresh=False)
                bar.update(len(ended))
                if ended:
                    bar.refresh()
                for outcome in ended:
                    with self.clock.spending("frames"):
                        clip = with_frames(outcome)
                    with self.clock.spending("rows"):  # until the caller wants more
                        yield clip
        finally:
            bar.close()
            self.cancel()

    def submit(
        self,
        request: Request,
        row_id: str,
        checkpoint: bytes | None = None,
        *,
        is_audited: bool | None = None,
    ) -> None:
        """Take a request that was checked already. Raises RecipeError for a second set of recipes.

        checkpoint: of a HalfDone of this row, to go on from; the log says if it cannot be used here.
        is_audited: whether the row is rendered again and compared, unless it was a plain call; None: by
        chance, as `audit` says.
        """
        recipe = self._recipes[request.recipe]
        self._recipe_set.check(recipe)
        self.read_ahead(request)
        is_alone = not recipe.is_batched
        # Its recipe may have changed this process, so what the process makes now proves nothing.
        self._auditor.order(row_id, False if is_alone else is_audited)
        self._rows.add(RenderRow(row_id, request, checkpoint=checkpoint, is_alone=is_alone))

    def rehearse(self, request: Request) -> None:
        """Measure the memory of a checked request by one step of it. Call it before any row is submitted."""
        row = RenderRow("rehearsal", one_step(request), is_plain=True)
        has_all = not self._encoders.parked  # a plain call brings these back
        is_alike = has_all and not self._call.is_own(row)
        if is_alike and self.model.environment["device"].startswith("cuda"):
            with self.clock.spending("probe"):
                self._rehearsal.make(row)
            self._learn_anew()

    def render_plainly(self, request: Request, row_id: str) -> Outcome:
        """Render a checked request by a plain call, at once: an audit."""
        self._recipe_set.check(self._recipes[request.recipe])
        row = RenderRow(row_id, request, is_plain=True)
        with self.clock.spending("audit"):
            task = self._plain_task(row)
        self._charges.work_on({task: row})
        self._charges.charge()
        self._charges.work_on({})
        return self._ended(task, row)

    def set_apart(self, kind: str) -> None:
        """Render rows of this kind by plain calls from now on: otherwise they differ."""
        if kind not in self._auditor.apart:
            self._auditor.apart[kind] = DIFFERED
            self._begin_again()

    def take_audits(self) -> list[Audited]:
        """Return the audits that ended since the last call.

        Where a kind differs, each of its clips with `was_batched` may be wrong, except the audited ones.
        """
        return self._auditor.take()

    @property
    def num_remembered(self) -> int:
        """Number of batch sizes that other processes measured and this one proved."""
        return self._places.num_confirmed if self._places else 0

    def read_ahead(self, request: Request) -> list[Future[bytes]]:
        """Begin to read the images and videos of a request that will be submitted; return these reads.

        From any thread. If the row is submitted before they end, all rows wait for them.
        """
        return self._call.read_ahead(request)

    def step(self) -> list[Outcome]:
        """Take every row to its next forward; return the rows that ended on the way."""
        was_found = self._watch.found
        try:
            while not self._batcher.is_waited_in and (row := self._rows.take(self.capacity)) is not None:
                if error := self._rehearsal.refusal(row.request):
                    return self._given_out([failure_of(error, row)])
                if row.is_plain:
                    task = self._plain_task(row)
                    self._charges.work_on({task: row})
                    self._charges.charge()
                    return self._given_out([self._outcome(task, row)])
                for each in self._group(row):
                    self._start(each)
            self._charges.work_on(self._rows.under_way)
            with self._seen():
                finished = self._batcher.step(self._around_rows)
            if finished and not self._rows.has_others(finished):
                self._reset()
            for task in finished:
                if isinstance(task.error, AttentionChanged):
                    raise task.error
                row = self._rows.under_way[task]
                # The next row may have begun by now, with its step cache on.
                what = self._loaded.difference(expected=self._expected)
                if what and not self._call.is_own(row):
                    log.warning(
                        "rows of %s change %s as they render: from here on each runs alone", row.kind, what
                    )
                    self._auditor.apart[row.kind] = f"such a row changes {what} as it renders"
                    self._begin_again()
                    self._loaded.restore()
                    return []
        except AttentionChanged:
            self._watch.forget()
            self._begin_again()
            return []
        if self._watch.found != was_found:
            log.warning(
                "%s of %s changes while a row renders, so these rows are rendered alone",
                self._watch.found,
                type(self.model.pipe).__name__,
            )
            self._rows.all_alone = True
            self._begin_again()
            return []
        self._charges.charge()
        ended = [(task, self._rows.under_way.pop(task)) for task in finished]
        return self._given_out([self._outcome(task, row) for task, row in ended])

    def save(self) -> list[HalfDone]:
        """Return rows under way as another renderer could continue them; they continue here too."""
        self._park()
        halves = [self._hand_over.half_done(row, task) for task, row in self._rows.under_way.items()]
        return [half for half in halves if half.can_go_on]

    def drain(self) -> list[Outcome | HalfDone]:
        """Take all rows off, as they are before their next forwards, and return them; none is left.

        Some may end on the way; if rows are audited, these too continue elsewhere.
        """
        self._park()
        half_done: list[Outcome | HalfDone] = []
        for task in self._batcher.take_finished():
            row = self._rows.under_way.pop(task)
            if self._is_audited:
                half_done.append(self._hand_over.half_done(row, task))
            elif outcome := self._outcome(task, row):
                half_done.append(outcome)
        half_done += [self._hand_over.half_done(row, task) for task, row in self._rows.under_way.items()]
        half_done += [HalfDone(row.row_id, row.request, row.checkpoint) for row in self._rows.waiting]
        self.cancel()
        return half_done

    def drop(self, row_id: str) -> None:
        """Forget one row, between two steps: if it is under way, it ends before its next forward."""
        self._auditor.order(row_id, None)
        for task in self._rows.drop(row_id):
            self._batcher.drop(task)
        if not self._rows.under_way:
            self._reset()

    def _park(self) -> None:
        self._charges.work_on(self._rows.under_way)
        with self._seen():
            self._batcher.park(self._around_rows)
        self._charges.charge()

    @contextmanager
    def _seen(self) -> Iterator[None]:
        """Intercept what rows call while the block runs."""
        seen = nullcontext() if self._batcher.is_surrounded else self._shared_calls.seen()
        self._set_threads()
        with on_device(self.model.environment["device"]), seen:
            yield

    def _set_threads(self) -> None:
        """Compute with the number of threads in records: another model or a row may have set another."""
        torch.set_num_threads(self.model.settings.threads)

    @contextmanager
    def _around_rows(self) -> Iterator[None]:
        with self._shared_calls.around_rows(
            lambda: row.seconds if (row := self._row_at_work) else None, self._second_try
        ):
            yield
        self._set_threads()

    @contextmanager
    def _around_one(self) -> Iterator[None]:
        """Intercept what one row calls until it ends: its code may replace methods for its calls."""
        self._loras.release()
        self._loaded.take_off_hooks()
        placer = self.model.placer  # other devices do not see what a row changes
        with placer.alone() if placer else nullcontext(), self._shared_calls.seen(), self._around_rows():
            yield

    def cancel(self) -> None:
        """Forget all rows."""
        self._batcher.cancel()
        if self._at_home:
            self._at_home.close()
            self._at_home = None
        self._reset()
        self._encoders.bring()
        self._rows.clear()
        if self._places:
            self._places.finish()

    def _group(self, row: RenderRow) -> list[RenderRow]:
        """Return a row that was taken, and others that one call of the pipeline renders with it."""
        if not self._may_join or row.is_alone or self._batcher.reach < ENOUGH:
            return [row]
        self._rows.add(row)  # it is not lost if a trial ends by AttentionChanged
        room = min(self._rows.room(row, self.capacity), self._batcher.reach)
        rows = self._joint.group(row, self._rows.waiting, room)
        self._rows.take_out(rows)
        return rows

    def _try(self, rows: Sequence[RenderRow], tasks: list[RowTask]) -> None:
        """Render rows by tasks whose calls are kept, before others go on."""
        batcher = Batcher(self.forwards)
        for row in rows:
            tasks.append(batcher.start(self._task(row)))
            tasks[-1].history = []
        try:
            with self.clock.spending("probe"), self._seen():
                while batcher.tasks:
                    batcher.step(self._around_rows)
        finally:
            batcher.cancel()

    def _task(self, row: RenderRow, thread: RowThread | None = None) -> RowTask:
        journal, holds_loras = self._hand_over.journal(row), partial(self._loras.hold, row.adapters)
        call = partial(self._call, row)
        task = RowTask(call, row.draws, journal, before_turn=holds_loras, thread=thread)
        if row.joint:
            row.joint.add(task)
        return task

    def _start(self, row: RenderRow) -> None:
        self._joint.num_rows += 1
        self._reset()
        if self._cache:  # here, and not in the row's own code: its hooks go below the batcher's
            steps = row.request.arguments.get("num_inference_steps", 1)
            self._cache.start(steps=steps, pipe=lambda: row.pipe)
            self._expected = frozenset(self._loaded.differences())
        thread = None
        is_surrounded = not self._recipes[row.request.recipe].is_batched
        if not is_surrounded and not row.joint and self._tails.has_look(row.request.recipe):
            if self._at_home is None:
                self._at_home = ExitStack()
                self._at_home.enter_context(networks_at_home())
            thread = RowThread(partial(self._call, row), around=self._as_here, news=self._batcher.news)
        task = self._task(row, thread)
        if is_surrounded:
            self._batcher.start_alone(task, self._around_one)
        else:
            self._batcher.start(task)
        self._rows.start(task, row)

    @contextmanager
    def _as_here(self) -> Iterator[None]:
        """Set what torch keeps per thread as on the renderer's thread."""
        with on_device(self.model.environment["device"]), as_in_pipelines():
            yield

    def _reset(self) -> None:
        """Put networks that keep state, whose rows run alone, back to what they held before any row."""
        if self._cache:
            self._cache.stop()
        self._watch.restore()

    def _plain_task(self, row: RenderRow) -> RowTask:
        """Make the plain call of a row; return the task, which has ended."""
        task = RowTask(partial(self._judge, row))
        self._set_threads()
        with self.clock.spending("plain"):
            task.run()
        return task

    def _judge(self, row: RenderRow) -> Rendered:
        """Make the plain call of a row while no other row's code runs."""
        self._batcher.wait_for_away()
        if self._cache:  # the plain call adds its own hooks
            if self._rows.has_others(()):  # they began while the compared row was away
                self._begin_again()
            self._reset()
        return self._plain(row)

    def _wait(self) -> None:
        """Let the row at work wait for the others: memory ran out while they ran."""
        row = self._row_at_work
        if row and not row.is_alone and not self._batcher.is_waited_in:
            self._rows.halve(row.kind)
        self._batcher.wait()

    def _is_audit_affordable(self) -> bool:
        """Whether one more audit is within its share of this model's time."""
        if self._audit_share is None:
            return True
        seconds = {WORKER_SECONDS.key(cause): spent for cause, spent in self.clock.seconds().items()}
        return is_affordable(self._audit_share, ComputeTime.of(seconds))

    def _given_out(self, outcomes: Iterable[Outcome | None]) -> list[Outcome]:
        """Return what ended; rows of kinds that an audit has just set apart are rendered again."""
        with self.clock.spending("frames"):  # those that audits compare
            ready, doubtful = self._auditor.check(filter(None, outcomes))
        self._charges.charge()
        if doubtful:
            self._begin_again()
            for clip in doubtful:
                self._rows.add(self._charges.again(clip))
        charged = [self._charges.charged(ended) if isinstance(ended, Clip) else ended for ended in ready]
        self._charges.work_on({})  # what has ended is held no longer
        return charged

    def _outcome(self, task: RowTask, row: RenderRow) -> Outcome | None:
        """Return what became of a row; None where it is tried again."""
        if row.joint:
            row.joint.end()
        if isinstance(task.error, CameBack):
            self._tails.unlearn(row.request.recipe)
            self._rows.add_again(row)
            return None
        if doubt := task.journal.doubt(task.error):
            tell_begun_again(row, doubt)
            self._rows.add_again(row)
            return None
        if isinstance(task.error, JointError):
            if isinstance(task.error.__cause__, Exception):  # else the row that made the call was dropped
                self._joint.refuse(row, message_of(task.error.__cause__))
            row.checkpoint = self._hand_over.checkpoint(row, task)
            self._rows.add_again(row)
            return None
        outcome, is_own = self._ended(task, row), self._call.is_own(row)
        if row.is_plain and task.error is None and is_own:
            self._auditor.apart.setdefault(row.kind, "such a row failed when it was not")
        is_full = task.error is not None and is_out_of_memory(task.error)
        # Rows that are away may hold the memory that it lacks.
        is_crowded = is_full and row.is_alone and not row.is_plain and bool(self._rows.under_way)
        if is_full:
            if is_crowded:
                self._tails.unlearn(row.request.recipe)
                self._batcher.wait_for_away()
            free_memory()
        is_plain = is_own and not is_full  # only a plain call says whether a recipe raises by itself
        is_final = row.is_plain if is_plain else row.is_alone or not (is_full or row.was_batched)
        if task.error is None or isinstance(task.error, Blocked) or (is_final and not is_crowded):
            return outcome
        row.checkpoint = self._hand_over.checkpoint(row, task) if is_full else None
        about, message = {"row_id": row.row_id}, public_message(task.error)
        log.info(
            "row %s failed, and is tried again alone in the same attempt: %s",
            row.row_id,
            message,
            extra=about,
        )
        self._rows.add_again(row, is_alone=True, is_plain=is_plain)
        return None

    def _ended(self, task: RowTask, row: RenderRow) -> Outcome:
        if task.error is not None:
            is_full = is_out_of_memory(task.error)
            return failure_of(task.error, row, self._hand_over.half_done(row, task) if is_full else None)
        reading = self._prompts.reading(row.request)
        return clip_of(task, row, self.model, self._identity, reading, idle=self.clock.lap())

    @property
    def _row_at_work(self) -> RenderRow | None:
        task = joint.tasks[joint.place] if (joint := joint_at_work()) else self._batcher.current
        return self._rows.under_way.get(task) if task else None

    def _begin_again(self) -> None:
        """Restart the rows under way: each must have one backend, and no other row's state."""
        self._charges.charge()
        self._batcher.cancel()
        self._reset()
        self._learn_anew()
        self._rows.put_back()

    def _learn_anew(self) -> None:
        """Forget which batch sizes pay and are exact."""
        model, batching = self.model, self.batching
        places = self._places if batching.max_rows > 1 else None
        where = surroundings(model, batching) if places else ""
        findings = Findings(places, where, self._rehearsal.num_fitting)
        shared, spending = self._shared_calls.shared, self.clock.spending
        self.forwards = Forwards(
            model.denoisers(), batching, model.attention, self._watch, findings, shared, spending
        )
        self._batcher = Batcher(self.forwards)

"""The processes of a fleet's workers, as Ray actors: made, called, ended. Each has one call under way."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ray
from ray.exceptions import RayError
from ray.util.placement_group import NODE_ID_LABEL_KEY

import framefleet
from framefleet.cluster.worker.messages import Hello, Loading, WorkerReport, WorkerSetup
from framefleet.pipeline.errors import FleetError
from framefleet.pipeline.model.environment import source_fingerprint
from framefleet.pipeline.outputs.columns import ClipColumn
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.rows.identity import LaneKey

if TYPE_CHECKING:
    from framefleet.cluster.worker.worker import Worker

log = logging.getLogger(__name__)


class Listening:
    """A clock that stops while this process does not listen, as it is suspended or busy."""

    def __init__(self, now: float) -> None:
        self.seconds = 0.0
        self._last = now

    def tick(self, now: float, *, at_most: float) -> None:
        """Count the time since the last tick, up to a limit."""
        self.seconds += min(now - self._last, at_most)
        self._last = now


class Actor:
    """One process with one worker, whose calls it passes on. `ps` shows its name."""

    def __init__(self, pickled: bytes, folder: str | None) -> None:
        """pickled: the class of the worker, and its setup. folder: where modules of a recipe may be."""
        if folder is not None and folder not in sys.path:
            sys.path.append(folder)  # last, as in the driver
        worker_class, setup = ray.cloudpickle.loads(pickled)
        self._worker: Worker = worker_class(setup)
        self._device = setup.model.device

    def place(self) -> str:
        """Return the id of the machine, as soon as the process has one."""
        return str(ray.get_runtime_context().get_node_id())

    def start(self) -> Hello | Loading:
        answer = self._worker.start()
        if isinstance(answer, Hello):
            check_gpus(answer, ray.get_gpu_ids(), self._device)
        return answer

    def exchange(self, *arguments: Any, **settings: Any) -> WorkerReport:
        return self._worker.exchange(*arguments, **settings)

    def renew(self, pickled: bytes | None) -> Loading:
        return self._worker.renew(ray.cloudpickle.loads(pickled)[1] if pickled else None)


@dataclass(slots=True)
class Slot:
    """One place for a worker; each process that takes it has a name of its own."""

    number: int
    state: Literal["to start", "pending", "loading", "ready"] = "to start"
    since: float = 0.0  # when its state began, as `Listening` counts
    asked_at: float = 0.0  # when its call began, as `Listening` counts
    num_starts: int = 0
    host: str | None = None
    has_rendered: bool = False
    lane: LaneKey = LaneKey()  # noqa: RUF009
    load_s: float | None = None  # what loading it took
    starts_at: float = 0.0
    avoids_until: float = 0.0  # then it may also start on a machine that rests now
    is_to_renew: bool = False  # as soon as its call is answered
    actor: Any = None
    setup: WorkerSetup | None = None  # of its process

    @property
    def name(self) -> str:
        return f"worker-{self.number}"

    @property
    def worker(self) -> str:
        return self.name + (f".{self.num_starts}" if self.num_starts > 1 else "")


class Actors:
    def __init__(
        self,
        options: Mapping[LaneKey, dict[str, Any]],  # Ray's, of the workers of each lane
        worker_class: type[Any],
        setups: Mapping[LaneKey, WorkerSetup],
        *,
        folder: str | None,  # where modules of the user's may be, if any
        clock: Listening,  # by which slots count
    ) -> None:
        self._worker_class, self._folder, self._clock = worker_class, folder, clock
        self.set_up(options, setups)
        self._class = ray.remote(Actor)  # once: the cluster keeps a pickle of each
        self._calls: dict[Any, Slot] = {}  # by object ref
        self._kills: list[threading.Thread] = []

    def set_up(
        self, options: Mapping[LaneKey, dict[str, Any]], setups: Mapping[LaneKey, WorkerSetup]
    ) -> None:
        """Use these for processes that are made or renewed from now on."""
        self._options, self._setups = options, setups
        self._arguments = {
            lane: (ray.cloudpickle.dumps((self._worker_class, setup)), self._folder)
            for lane, setup in setups.items()
        }

    def make(self, slot: Slot, *, but: Collection[str]) -> None:
        """Make a process for the slot, not on these machines, as soon as there is room; ask where it is."""
        slot.num_starts += 1
        slot.state, slot.since, slot.host, slot.has_rendered = "pending", self._clock.seconds, None, False
        slot.is_to_renew, slot.load_s, slot.setup = False, None, self._setups[slot.lane]
        where = {NODE_ID_LABEL_KEY: f"!in({', '.join(but)})"} if but else None
        options = self._options[slot.lane] | {"label_selector": where}
        slot.actor = self._class.options(**options).remote(*self._arguments[slot.lane])
        self.ask(slot, slot.actor.place.remote())

    def renew(self, slot: Slot) -> None:
        """Let the process, whose last call was answered, serve another driver."""
        setup = self._setups[slot.lane]
        pickled = None if setup == slot.setup else self._arguments[slot.lane][0]
        slot.is_to_renew, slot.setup = False, setup
        self.ask(slot, slot.actor.renew.remote(pickled))

    def ask(self, slot: Slot, ref: Any) -> None:
        slot.asked_at = self._clock.seconds
        self._calls[ref] = slot

    def answered(self, timeout_s: float) -> list[tuple[Slot, Any]]:
        """Return the calls that have ended, with their refs, as soon as one has."""
        refs = list(self._calls)
        if not refs:
            time.sleep(timeout_s)
            return []
        ray.wait(refs, num_returns=1, timeout=timeout_s)
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        return [(self._calls.pop(ref), ref) for ref in ready]

    def pending(self) -> list[Slot]:
        return list(self._calls.values())

    def end(self, slot: Slot) -> None:
        """End the process. One that was only cut off would continue rendering.

        This runs on a thread: Ray lets its head do it, and waits for that without a limit, deaf to signals.
        """
        self._calls = {ref: other for ref, other in self._calls.items() if other is not slot}
        thread = threading.Thread(target=kill, args=(slot.actor,), name="kill", daemon=True)
        self._kills = [*(running for running in self._kills if running.is_alive()), thread]
        thread.start()

    def wait_for_kills(self) -> None:
        """Wait until what `end` began is over: Ray may crash if it is shut down meanwhile."""
        for thread in self._kills:
            thread.join()


def kill(actor: Any) -> None:
    try:
        # `ray.kill` without what it does first: `ray.init`, where this process has left Ray meanwhile.
        getattr(ray.kill, "__wrapped__", ray.kill)(actor)
    except (RayError, AttributeError) as error:  # this process leaves Ray, or has left it; its actors end
        log.debug("%s was not killed: %s", actor, error)


def modules_to_ship(recipes: Iterable[Recipe], columns: Iterable[ClipColumn] = ()) -> list[str]:
    """Return the file or package folder of each user's function that other machines may not have."""
    modules = [recipe.function.__module__ for recipe in recipes if recipe.is_own]
    modules += [column.module for column in columns if column.module]
    tops = {module.partition(".")[0] for module in modules}
    paths = [Path(file) for top in sorted(tops) if (file := getattr(sys.modules[top], "__file__", None))]
    own = [path for path in paths if not {"site-packages", "dist-packages"} & set(path.parts)]
    return [str(path.parent if path.name == "__init__.py" else path) for path in own]


def check_gpus(hello: Hello, given: Collection[object], device: str) -> None:
    """Raise FleetError if a worker uses the CPU although Ray gave it GPUs. device: as in the job.

    Its frames would differ, and take hours.
    """
    if given and device == "auto" and hello.environment.get("device") == "cpu":
        raise FleetError(
            f"Ray gave the worker on {hello.node} a GPU, but torch {hello.environment['torch']} finds none",
            "run nvidia-smi there, and install a torch that is built for its CUDA; or set model.device: cpu",
        )


def check_hello(worker: str, hello: Hello) -> None:
    """Raise FleetError if a worker runs another build of framefleet than this process."""
    if (hello.version, hello.fingerprint) != (framefleet.__version__, source_fingerprint()):
        raise FleetError(
            f"{worker} on {hello.node} runs framefleet {hello.version}, another build than this one "
            f"({framefleet.__version__})",
            "install the same version on every machine of the cluster",
        )

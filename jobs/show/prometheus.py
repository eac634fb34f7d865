"""Figures of a job under way, served for Prometheus to scrape. In a Ray cluster, Ray exports them too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from framefleet.cluster.driver.progress import Progress
from framefleet.jobs.show.watch import Standing, Watch
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.metrics import METRICS

if TYPE_CHECKING:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector


class _Exported:
    """Passes progress on, and keeps its figures for whoever asks, from any thread."""

    def __init__(self, watch: Watch, output: str) -> None:
        self._watch, self._output = watch, output
        self._figures: Mapping[str, float] = {}
        self.say = watch.say

    def show(self, standing: Standing) -> None:
        if isinstance(standing, Progress):
            self._figures = standing.figures
        self._watch.show(standing)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, as a collector of prometheus_client."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        figures = self._figures
        for metric in METRICS.values():
            labels = ["output", *([metric.label] if metric.label else [])]
            kind: type[CounterMetricFamily | GaugeMetricFamily]
            kind = CounterMetricFamily if metric.is_total else GaugeMetricFamily
            family = kind(f"framefleet_{metric.name}", metric.help, labels=labels)
            is_counted = metric.is_total or metric.name in figures
            values = (
                metric.by_label(figures) if metric.label else {"": metric.of(figures)} if is_counted else {}
            )
            for value, figure in values.items():
                family.add_metric([self._output, value][: len(labels)], figure)
            yield family


@contextmanager
def serving_metrics(watch: Watch, at: str | None, *, output: str) -> Iterator[Watch]:
    """Serve the figures of what `watch` shows, while the block runs.

    at: [HOST:]PORT, on loopback without a host; None serves nothing. output: the job's, a label of all.
    Raises JobError where it cannot be served there.
    """
    if at is None:
        yield watch
        return
    from prometheus_client import CollectorRegistry, start_http_server  # takes a third of a second

    exported, registry = _Exported(watch, output), CollectorRegistry(auto_describe=False)
    host, _, port = at.rpartition(":")
    try:
        registry.register(cast("Collector", exported))
        server, thread = start_http_server(int(port), host.strip("[]") or "127.0.0.1", registry)
        # Of a client that has left it would print a traceback.
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
    except (OSError, ValueError, OverflowError) as error:
        problem = f"--metrics-port: figures cannot be served at {at!r}: {error}"
        raise JobError(problem, "give a free port, or HOST:PORT") from None
    try:
        yield exported
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

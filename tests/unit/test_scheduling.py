"""No encoder leaves a thread real-time, neither while it writes nor afterwards."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from framefleet.pipeline.outputs.media.av_file import encode_av
from framefleet.pipeline.outputs.media.media_settings import Media
from tests.unit.test_media import ENCODED, said

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only there threads have such policies"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root gets them"),
]


def policies() -> set[int]:
    policies = set()
    for thread in map(int, os.listdir("/proc/self/task")):
        with suppress(ProcessLookupError):  # it has ended
            policies.add(os.sched_getscheduler(thread))
    return policies


class Watched(np.ndarray[Any, Any]):
    """Frames that note which policies threads have whenever one is taken."""

    seen: set[int]

    def __getitem__(self, index: Any) -> Any:
        self.seen |= policies()
        return np.asarray(self)[index]


@pytest.mark.parametrize("media", ENCODED, ids=said)
def test_all_threads_are_scheduled_as_before(media: Media) -> None:
    frames = np.zeros((9, 80, 80, 3), np.uint8).view(Watched)
    frames.seen = set()
    encode_av(frames, None, media=media, rate=Fraction(8), tags={})
    assert frames.seen == policies() == {os.SCHED_OTHER}


def test_who_has_another_policy_keeps_it() -> None:
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        frames, media = np.zeros((2, 80, 80, 3), np.uint8), Media(format="mp4", encoder="libsvtav1")
        encode_av(frames, None, media=media, rate=Fraction(8), tags={})
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))

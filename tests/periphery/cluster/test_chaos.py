"""A small job in a short storm; `make chaos` has the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers import S3Server
from tools.chaos.chaos import chaos
from tools.chaos.network import why_not
from tools.chaos.storm import Forecast

FORECAST = Forecast(seed=16, num_faults=6, gap_s=(1, 4), longest_s=8, limit_s=400)


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_nothing_is_lost_doubled_changed_or_left_in_a_storm(s3_server: S3Server, tmp_path: Path) -> None:
    chaos(s3_server, tmp_path, num_rows=36, forecast=FORECAST, say=print)

"""How long requests to a store are repeated, where some are answered and others are not."""

from __future__ import annotations

import time

import pytest

from framefleet.pipeline.outputs.stores.retries import Patience

LIMIT_S = 0.5


class Slow:
    """A request that waits for longer than the limit, while the store answers others or does not."""

    def __init__(self, patience: Patience, *, num_failures: int, others_are_answered: bool) -> None:
        self.patience = patience
        self.num_failures, self.others_are_answered = num_failures, others_are_answered
        self.num_asked = 0

    def __call__(self) -> str:
        self.num_asked += 1
        if self.num_asked > self.num_failures:
            return "an answer"
        if self.num_asked > 1:
            time.sleep(LIMIT_S)
            if self.others_are_answered:
                self.patience.ride_out(lambda: "another answer")
        raise TimeoutError("no answer")


def patience() -> Patience:
    patience = Patience("s3://bucket/run", LIMIT_S)
    patience.ride_out(lambda: "it has answered before")
    return patience


def test_a_request_that_waited_as_the_store_came_back_is_made_once_more() -> None:
    there = patience()
    request = Slow(there, num_failures=2, others_are_answered=True)
    assert there.ride_out(request) == "an answer"
    assert request.num_asked == 3


@pytest.mark.parametrize(("others_are_answered", "num_asked"), [(True, 3), (False, 2)])
def test_one_that_is_never_answered_ends(others_are_answered: bool, num_asked: int) -> None:
    there = patience()
    request = Slow(there, num_failures=9, others_are_answered=others_are_answered)
    with pytest.raises(TimeoutError):
        there.ride_out(request)
    assert request.num_asked == num_asked

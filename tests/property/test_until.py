"""Whatever is rendered first, by however many workers: the same clips are accepted, and few are surplus."""

from __future__ import annotations

import random

from hypothesis import given, settings, strategies as st

from framefleet.plugins.until.acceptance import (
    PASSED,
    REJECTED,
    UNJUDGED,
    UNRENDERED,
    Group,
    Quotas,
    rows_to_ask,
)

WANTED, AT_MOST = 5, 40


def render(truth: list[list[int]], *, in_hand: int, seed: int, rate: float | None = None) -> list[Group]:
    """Render as a fleet does that has some rows in hand, which end in any order; asked as the driver asks."""
    groups = [Group(values={}, wanted=WANTED, at_most=AT_MOST) for _ in truth]
    chance, waiting, leased = random.Random(seed), list[tuple[int, int]](), list[tuple[int, int]]()

    def ask(num_rows: int) -> None:
        for at, number in rows_to_ask(groups, num_rows, rate).items():
            for _ in range(number):
                waiting.append((at, len(groups[at].outcomes)))
                groups[at].outcomes.append(UNRENDERED)

    ask(0)
    while waiting or leased:
        while waiting and len(leased) < in_hand:
            leased.append(waiting.pop(0))
        at, place = leased.pop(chance.randrange(len(leased)))
        groups[at].outcomes[place] = truth[at][place]
        if not waiting:
            ask(max(0, -(-in_hand // 2) - len(leased)))
    return groups


def accepted_of(group: Group) -> list[int]:
    return [place for place, mark in enumerate(group.marks()) if mark and mark[0]]


clips = st.lists(st.sampled_from([REJECTED, REJECTED, PASSED, UNJUDGED]), min_size=AT_MOST, max_size=AT_MOST)


@given(st.lists(clips, min_size=1, max_size=4), st.integers(1, 40), st.integers(), st.none() | st.just(0.1))
@settings(deadline=None)
def test_the_first_that_pass_are_accepted_whoever_renders(
    truth: list[list[int]], in_hand: int, seed: int, rate: float | None
) -> None:
    for outcomes, group in zip(truth, render(truth, in_hand=in_hand, seed=seed, rate=rate), strict=True):
        judged = outcomes[: outcomes.index(UNJUDGED)] if UNJUDGED in outcomes else outcomes
        first = [place for place, outcome in enumerate(judged) if outcome == PASSED][:WANTED]
        assert accepted_of(group) == [place for place in first if place < len(group.outcomes)]
        if UNJUDGED not in group.outcomes:
            assert len(accepted_of(group)) == WANTED or len(group.outcomes) == AT_MOST
        state = group.state()
        assert state.accepted == len(accepted_of(group)) and state.num_pending == 0
        marks = [mark for mark in group.marks() if mark]
        assert state.num_surplus == sum(is_surplus for _, is_surplus in marks)
        assert not any(is_accepted and is_surplus for is_accepted, is_surplus in marks)


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_of_twelve_groups_little_is_surplus_with_two_workers_of_large_batches(seed: int) -> None:
    chance, num_rendered, num_surplus = random.Random(seed), 0, 0
    for _ in range(10):  # a single job varies
        truth = [chance.choices([PASSED, REJECTED], [1, 2], k=AT_MOST) for _ in range(12)]
        states = [group.state() for group in render(truth, in_hand=32, seed=seed)]
        num_rendered += sum(state.num_rendered for state in states)
        num_surplus += sum(state.num_surplus for state in states)
    assert num_surplus <= 0.1 * num_rendered


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=30), st.lists(st.integers(0, 9), min_size=1, max_size=4)
)
def test_shares_hold_over_all_groups(wanted: list[int], weights: list[int]) -> None:
    whole = sum(weights) or 1
    shares = {(str(at),): weight / whole for at, weight in enumerate(weights)}
    if not sum(weights):
        shares = {("0",): 1.0}
    quotas, totals = Quotas(shares), dict.fromkeys(shares, 0)
    for number in wanted:
        split = quotas.split(number)
        assert sum(split.values()) == number
        totals = {values: totals[values] + split[values] for values in totals}
    assert all(abs(totals[values] - share * sum(wanted)) <= len(shares) for values, share in shares.items())

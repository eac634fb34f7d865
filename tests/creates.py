"""Many that create one file at the same moment, of whom one is to win."""

from __future__ import annotations

import threading

from framefleet import Store, StoreConflict


def losers_of_a_race(store: Store, path: str, *, num_creators: int) -> list[int]:
    """Have so many threads create a file, each with its own number in it; return those that were refused."""
    losers: list[int] = []

    def create(number: int) -> None:
        try:
            store.create(path, b"%d" % number)
        except StoreConflict:
            losers.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(num_creators)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return losers

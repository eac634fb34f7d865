"""Push a finished export to a dataset of the Hugging Face hub, a few files per commit.

Token and endpoint are huggingface_hub's: `hf auth login`, HF_TOKEN, HF_ENDPOINT.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

from framefleet.api.commands import Watch, wait_for
from framefleet.api.errors import JobError
from framefleet.api.outputs import Store
from framefleet.api.texts import public_text
from framefleet.pipeline.errors import ServiceError
from framefleet.plugins.export.card import CROISSANT, DATASET_CARD
from framefleet.plugins.export.shard import NOTES

_COMMIT_FILES, _COMMIT_BYTES = 200, 1 << 30  # a commit takes seconds; its files are copied to this disk
_NO_RIGHT = (401, 403, 404)  # the hub answers 404 for datasets that the user may not see


class Hub:
    """A dataset of the hub, which is created if it does not exist."""

    def __init__(self, name: str, *, is_private: bool = False) -> None:
        """Raises JobError for an invalid name, and if the user may not write."""
        disable_progress_bars()
        self._name, self._api = name, HfApi()
        if name.count("/") != 1:
            raise JobError(f"push: {name!r} is not a dataset name on the hub", "write it as org/name")
        try:
            self._api.create_repo(name, repo_type="dataset", private=is_private or None, exist_ok=True)
        except Exception as error:  # the client passes on its HTTP library's errors
            _refuse(name, error)

    def push(self, place: Store, watch: Watch) -> str:
        """Upload every file of an export, in order; return the dataset's URL.

        Files that the hub already has are not sent again, so an interrupted push continues. An existing card
        stays.
        """
        try:
            siblings = self._api.dataset_info(self._name).siblings or []
        except Exception as error:  # as above
            _refuse(self._name, error)
        stored, cards = place.details(""), {DATASET_CARD, CROISSANT} & {file.rfilename for file in siblings}
        sizes = {
            path: stored[path].size
            for path in sorted(stored)
            if not path.startswith(f"{NOTES}/") and path not in cards
        }
        num_pushed = 0
        for paths in _commits(sizes):
            wait_for(watch, f"pushing to {self._name}: files done: {num_pushed:,} of {len(sizes):,}")
            with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
                added = []
                for number, path in enumerate(paths):
                    file = Path(folder, str(number))
                    place.download(path, file)
                    added.append(CommitOperationAdd(path_in_repo=path, path_or_fileobj=file))
                try:
                    self._api.create_commit(
                        self._name, added, repo_type="dataset", commit_message=f"{paths[0]} to {paths[-1]}"
                    )
                except Exception as error:  # as above
                    _refuse(self._name, error)
            num_pushed += len(paths)
        return f"{self._api.endpoint}/datasets/{self._name}"


def _commits(sizes: dict[str, int]) -> Iterator[list[str]]:
    paths: list[str] = []
    num_bytes = 0
    for path, size in sizes.items():
        if paths and (len(paths) == _COMMIT_FILES or num_bytes + size > _COMMIT_BYTES):
            yield paths
            paths, num_bytes = [], 0
        paths, num_bytes = [*paths, path], num_bytes + size
    if paths:
        yield paths


def _refuse(name: str, error: Exception) -> NoReturn:
    """Raise an error with a fix. The hub client's own text may contain a token."""
    message = public_text(str(error)).strip().partition("\n")[0] or type(error).__name__
    if isinstance(error, HFValidationError):
        problem = f"push: {name!r} is not a dataset name on the hub: {message}"
        raise JobError(problem, "write it as org/name") from None
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, LocalTokenNotFoundError) or status in _NO_RIGHT:
        raise JobError(
            f"push: no permission to write to {name} on the hub: {message}",
            "log in with `hf auth login`, or set HF_TOKEN to a token with write permission",
        ) from None
    raise ServiceError(
        f"push: the hub did not accept {name}: {message}",
        "check the connection and HF_ENDPOINT, then run the same command again to continue",
    ) from None

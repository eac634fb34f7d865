"""What Azure Blob Storage has of its own, below adlfs: patience of its client, and checks."""

from __future__ import annotations

from typing import Any

CHECKS: dict[str, Any] = {"validate_content": True}  # of each put: its MD5


def is_azure(url: str) -> bool:
    return url.partition("://")[0] in ("az", "abfs", "abfss")


def ask_azure_once(files: Any) -> None:
    """Let a file system that was opened make each request once: `Patience` repeats it.

    By itself it makes four attempts, with a minute of pauses.
    """
    policy = getattr(getattr(files.service_client, "_config", None), "retry_policy", None)
    if policy is not None:
        policy.total_retries = 0

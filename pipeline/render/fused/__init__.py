"""Forwards that many rows share: parked calls, joined and parted, proven bit-equal."""

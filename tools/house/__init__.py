"""The house checks itself: what its texts name stands, and one name means one thing.

`python -m tools.house` is part of `make check`; with `--figures` it counts instead. It reads texts and
syntax trees, and imports of the product the command line and the schema of jobs alone.
"""

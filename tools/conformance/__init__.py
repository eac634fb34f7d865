"""Every class of diffusers that has a tiny pipeline, measured: batched rows against plain calls.

`python -m tools.conformance` renders each through `framefleet.render` and writes the table of
docs/reference/models.md; tests/periphery/models/test_conformance.py does the same in one process. A class
is in by its tiny pipeline being listed in `SMALLEST` of tests/tiny.py.
"""

# The token of the cluster, and the path of the guardrail, before Ray and diffusers are imported.
import tests.conftest  # noqa: F401

"""What must be set before Ray is imported, as tests join a cluster that wants a token: Ray reads it once."""

import os
import secrets

os.environ.setdefault("RAY_AUTH_MODE", "token")
# One token for all clusters that tests start and join in one process.
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

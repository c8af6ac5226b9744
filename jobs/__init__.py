"""What people submit: python -m jobs.train, and the like."""

from actors.auth import use_token

use_token()

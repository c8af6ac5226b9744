"""What people submit: python -m jobs.train, and the like."""

from actors.ray_backend.joining.auth import use_token

use_token()

"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# how long an example takes says how busy the machine is
settings.register_profile("holdfast", deadline=None)
settings.load_profile("holdfast")

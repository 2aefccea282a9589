"""What all tests share."""

from __future__ import annotations

import signal

from hypothesis import settings

# how long an example takes says how busy the machine is
settings.register_profile("holdfast", deadline=None)
settings.load_profile("holdfast")

# a shell has what it starts in the background ignore it, and so would all that tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)

"""What all tests share."""

from __future__ import annotations

import signal

from hypothesis import settings

# the duration of an example depends on how busy the machine is
settings.register_profile("holdfast", deadline=None)
settings.load_profile("holdfast")

# a shell starts background processes with SIGINT ignored; the tests' own processes would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)

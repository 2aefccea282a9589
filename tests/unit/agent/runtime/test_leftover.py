"""Helpers of an agent that was killed are found by a word on their command line, and by nothing else."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from holdfast.agent.runtime.leftover import end_leftover


def test_only_those_with_the_very_word_are_ended(tmp_path: Path) -> None:
    argument = f"--target-dir={tmp_path}"
    program = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    mine, other = (
        subprocess.Popen([*program, each], stdout=subprocess.PIPE)
        for each in (argument, f"{argument}2")
    )
    try:
        for each in (mine, other):
            assert each.stdout is not None
            each.stdout.readline()
        end_leftover(argument)
        assert mine.wait(10) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        for each in (mine, other):
            each.kill()
            each.communicate()

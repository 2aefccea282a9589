"""How many files a server may open, and one that this process starts."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from typing import cast

import pytest

from holdfast.agent.observe.server_run import ServerRun
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.agent.start.limits import Limits
from holdfast.core.gtid import Flavor
from holdfast.core.view import MemberState
from holdfast.server.process import limits


class OneRun:
    """The watch's view of a run of the server."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def current(self) -> OneRun:
        return self


def test_a_server_with_more_than_its_agent_is_warned_of_once_per_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    published = PublishedState(MemberState("m1", Flavor.MYSQL))
    has = limits.of_server(os.getpid())
    assert has == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    monkeypatch.setattr(limits, "inherited", lambda: has - 1)
    run = OneRun(os.getpid())
    watch = Limits(cast(ServerRun, run), published)
    watch.looked()
    assert published.state.concerns[0].startswith(
        f"its server may open {has} files, and its agent lets"
    )
    monkeypatch.setattr(limits, "inherited", lambda: has)
    watch.looked()
    assert published.state.concerns, "it was looked at already"
    run.pid = os.getppid()
    monkeypatch.setattr(limits, "of_server", lambda pid: has)
    watch.looked()
    assert published.state.concerns == ()


def test_a_process_that_may_not_raise_its_limit_hands_on_what_it_has() -> None:
    script = (
        "import resource, holdfast.server.process.limits as own\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))\n"
        "own._may_raise = lambda: False\n"
        "print(own.inherited())\n"
        "own._may_raise = lambda: True\n"
        "print(own.inherited() > 128)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["128", "True"]
    assert limits.of_server(2**22 + 1) == 0

"""Each command states how long an agent may take; its answer is waited for a little longer."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import get_args

import pytest

from holdfast.core.commands import Clone, Command, Inventory, Prove, Restart, answered_within
from holdfast.http.manager_client import CLONE_SECONDS, RESTART_SECONDS


@pytest.mark.parametrize("kind", get_args(Command), ids=lambda kind: kind.__name__)
def test_each_command_has_a_deadline_of_its_own(kind: type[Command]) -> None:
    assert is_dataclass(kind)
    assert "within" not in [each.name for each in fields(kind)]
    assert kind.within > 0
    assert kind.within + 1 <= answered_within(kind) <= max(6.0, kind.within + 10)


def test_the_margin_grows_with_the_deadline() -> None:
    kinds = (Prove, Clone, Inventory, Restart)
    assert [each.within for each in kinds] == [5, 30, 60, 120]
    assert [answered_within(each) for each in kinds] == [7, 40, 70, 130]


def test_the_command_line_waits_longer_than_the_manager() -> None:
    assert answered_within(Clone) < CLONE_SECONDS
    assert answered_within(Restart) < RESTART_SECONDS

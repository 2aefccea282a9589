"""What commands do, in words."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.core.commands import (
    Bar,
    Clone,
    Close,
    Command,
    CommitEmpty,
    Compare,
    Cut,
    EndReplicas,
    Fence,
    Follow,
    Forget,
    Inventory,
    Judge,
    Promote,
    Prove,
    Restart,
    Rewind,
    SetAcks,
    Start,
    Unbar,
)


def under_way(command: Command) -> str:
    """``attaching it to the primary is under way``; of a command that is of no interest to operators: ``a step is under
    way``."""
    return f"{_DOES.get(type(command), 'a step')} is under way"


_DOES: Mapping[type[Command], str] = {
    Follow: "attaching it to the primary",
    Cut: "the check of its binlog",
    Start: "the start of its server",
    Fence: "ending its server",
    Clone: "a clone",
    Rewind: "a rewind",
    Judge: "reading its own transactions",
    Forget: "forgetting its own transactions",
    Compare: "comparing its tables",
    Restart: "a restart",
    SetAcks: "a change of how commits wait",
    Prove: "the proof that its voters acknowledge",
    Bar: "barring a replica",
    Unbar: "letting a replica connect again",
    Close: "closing it",
    EndReplicas: "ending replicas' sessions",
    CommitEmpty: "committing empty transactions",
    Promote: "opening it",
    Inventory: "reading what its files hold",
}

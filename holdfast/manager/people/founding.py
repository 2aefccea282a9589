"""What is done before a cluster has a record: its members are prepared, and the first record is made."""

from __future__ import annotations

from holdfast.core.change import bootstrap
from holdfast.core.decision import Save, Send
from holdfast.core.record import Record
from holdfast.errors import Refused
from holdfast.manager.leader.act import Actor
from holdfast.manager.leader.lead import Leader


async def prepare(leader: Leader, step: Send) -> None:
    """Have a command carried out before there is a record.

    :raises Refused: there is one
    :raises HoldfastError: by consequence
    """
    async with leader.deciding:
        actor = _founding(leader)
    await actor.order(bootstrap.TERM, step)


async def found(leader: Leader, record: Record, why: str) -> None:
    """Begin with this record; call it with ``deciding`` held, from a look that was taken since.

    :raises Refused: there is one
    """
    _founding(leader)
    await leader.decided(Save(record, why))


def _founding(leader: Leader) -> Actor:
    actor, record = leader.leading()
    if record is not None:
        raise Refused(f"{leader.cluster.name} is managed already: {record.primary} is its primary")
    return actor

"""What enforces a primary's lease besides the agent, as the agent's file configures it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable

from holdfast.agent.lease.gate import Gate
from holdfast.agent.lease.keeper_process import Begin
from holdfast.agent.lease.second_keeper import Helpers, SecondKeeper
from holdfast.agent.lease.watchdog import Watchdog
from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.agent.vip.supervisor import Address
from holdfast.config.schema import AgentConfig
from holdfast.config.schema import GateMode as GateKind
from holdfast.config.token import TokenFile
from holdfast.core.lease import Protection

BY_ITSELF = (Protection.AGENT,)
"""What an agent has without keeper process, gate and watchdog."""


def second_keeper(
    config: AgentConfig,
    token: TokenFile | None,
    writer: BackgroundWriter,
    published: PublishedState,
) -> SecondKeeper | None:
    """The keeper process, in which gate and watchdog run; None where it is not configured."""
    lease = config.lease
    if not lease.keeper:
        return None
    begin = Begin(
        config.name,
        config.cluster,
        token.sent if token else None,
        config.tls.files if config.tls else None,
        () if lease.gate is GateKind.OFF else lease.nft_command,
        lease.gate is GateKind.NFTABLES,
        _table(config),
        lease.watchdog,
        config.log_format,
    )

    def helped(helpers: Helpers) -> None:
        published.change(protections=(*BY_ITSELF, *helpers.protections))

    wait = lease.gate is GateKind.NFTABLES or lease.watchdog is not None
    second = SecondKeeper(
        config.state_dir, begin, writer, published.alarm, wait, helped, published.clock
    )
    if token is not None:
        token.renewed.append(lambda: second.show(token.sent))
    return second


def alone(
    config: AgentConfig, writer: BackgroundWriter, published: PublishedState
) -> tuple[Gate | Watchdog, ...]:
    """Gate and watchdog without a keeper process. A gate that is not configured explicitly is not raised then: it would
    block the server of an agent that hangs."""
    lease = config.lease
    guards: list[Gate | Watchdog] = []
    if lease.gate is GateKind.NFTABLES:

        def shut(failed: str) -> None:
            published.alarm("gate", failed)

        guards.append(Gate(lease.nft_command, _table(config), writer, shut, published.clock))
    if lease.watchdog is not None:

        def unfed(failed: str) -> None:
            published.alarm("watchdog", failed)

        guards.append(Watchdog(lease.watchdog, writer, unfed, published.clock))
    return tuple(guards)


def addresses(
    config: AgentConfig,
    writer: BackgroundWriter,
    published: PublishedState,
    second: SecondKeeper | None,
) -> tuple[Address, ...]:
    """What holds the virtual addresses, under the same lease."""

    def alarm(ip: str) -> Callable[[str], None]:
        return lambda failed: published.alarm(f"vip {ip}", failed)

    words = second.words if second else None
    return tuple(Address(each, published, writer, alarm(each.ip), words) for each in config.vip)


def _table(config: AgentConfig) -> str:
    """The name of the gate's table: members of different clusters may have the same name on one machine."""
    place = zlib.crc32(os.fsencode(config.state_dir.absolute()))
    return f"holdfast_{config.name}_{place:08x}"

"""A virtual address as the agent's file describes it."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from holdfast.config.values import Duration, StrictModel

LONGEST_NAME = 15
"""Of an interface: IFNAMSIZ without the terminating byte."""


def _address(text: str) -> str:
    if "/" not in text:
        raise ValueError("must be ADDRESS/BITS, for example 192.0.2.10/24")
    try:
        found = ip_interface(text)
    except ValueError as error:
        raise ValueError(f"must be ADDRESS/BITS, for example 192.0.2.10/24: {error}") from None
    ip = found.ip
    if ip.is_unspecified or ip.is_multicast or ip.is_loopback or ip.is_link_local:
        raise ValueError(f"{ip} is no address that clients on other hosts could use")
    if found.network.num_addresses > 2 and ip == found.network.network_address:
        raise ValueError(f"{ip} names the network {found.network}, not a host in it")
    if isinstance(found, IPv4Interface) and found.network.prefixlen < 31 and _broadcast(found):
        raise ValueError(f"{ip} is the broadcast address of {found.network}")
    return str(found)


def _broadcast(found: IPv4Interface) -> bool:
    return found.ip == found.network.broadcast_address


class VipConfig(StrictModel):
    """An address that is on the primary's host, and nowhere else.

    :ivar address: ``ADDRESS/BITS``, IPv4 or IPv6
    :ivar interface: that carries it
    :ivar linger: for so long it stays on where the agent is gone and its server is well
    """

    address: Annotated[str, AfterValidator(_address)]
    interface: Annotated[str, Field(pattern=r"^[^\s/]+$", max_length=LONGEST_NAME)]
    linger: Annotated[Duration, Field(ge=0, le=86400)] = 300.0

    @property
    def parsed(self) -> IPv4Interface | IPv6Interface:
        return ip_interface(self.address)

    @property
    def ip(self) -> str:
        return str(self.parsed.ip)


def _one_or_several(value: object) -> object:
    return [value] if isinstance(value, dict) else value


def _no_twins(vips: tuple[VipConfig, ...]) -> tuple[VipConfig, ...]:
    if len({each.ip for each in vips}) < len(vips):
        raise ValueError("an address is given twice")
    return vips


Vips = Annotated[tuple[VipConfig, ...], BeforeValidator(_one_or_several), AfterValidator(_no_twins)]
"""One mapping, or a list of them: an IPv4 and an IPv6 address, for instance."""

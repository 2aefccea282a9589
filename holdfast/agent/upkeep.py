"""Builds what maintains accounts, and founds a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from holdfast.agent.member import LocalMember
from holdfast.agent.promise.disabled_events import DisabledEvents
from holdfast.agent.start.accounts import ReplicationAccounts
from holdfast.agent.start.founding import Founding
from holdfast.agent.start.login_watch import KeptLogins, LoginWatch, watching
from holdfast.server.connection.sql import Connection
from holdfast.server.inspect.adopting import Adopter
from holdfast.server.primary import events


@dataclass(frozen=True, slots=True)
class Upkeep:
    accounts: ReplicationAccounts
    logins: LoginWatch
    founding: Founding


def upkeep(member: LocalMember, obeyed: Callable[[], bool]) -> Upkeep:
    """:param obeyed: whether this agent has ever obeyed a manager, or its data are being cloned"""
    published, own, admin = member.published, member.own, member.admin
    logins = KeptLogins(published)
    adopter = Adopter(own.flavor, own.socket, admin, encrypted=own.tls is not None)
    founding = Founding(member, obeyed)
    accounts = ReplicationAccounts(member, adopter, logins, founding)
    watch_logins = watching(published, logins, own, admin, member.replication)
    session = Connection(own.socket, admin)
    disabled = DisabledEvents(published, partial(events.write_down, session))
    watch_logins.also.append(disabled.step)
    return Upkeep(accounts, watch_logins, founding)

"""What clients need of a cluster that they write to, whether a sandbox on loopback or a lab of hosts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from holdfast.core.gtid import Flavor
from holdfast.sandbox.local.accounts import Accounts
from holdfast.sandbox.local.spec import MemberSpec
from holdfast.sandbox.waiting import Status
from holdfast.server.connection.login import SafeLogin


class HasFlavor(Protocol):
    @property
    def flavor(self) -> Flavor: ...


class Written(Protocol):
    """``Sandbox`` is one. A ``Lab`` is one with a ``spec``, which it calls its plan."""

    accounts: Accounts

    @property
    def spec(self) -> HasFlavor: ...

    def members(self) -> tuple[MemberSpec, ...]: ...

    def primary(self) -> str: ...

    def wait_until(
        self, predicate: Callable[[Status], bool], seconds: float, what: str = ...
    ) -> Status: ...

    def connect(self, member: str, **options: Any) -> SafeLogin: ...

"""Orders remove a member from the cluster, and add it again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from holdfast.errors import HoldfastError, Refused
from holdfast.sandbox.lab.lab import Lab
from holdfast.sandbox.local.spec import CLUSTER

ASK_AGAIN_SECONDS = 0.3
BACK_SECONDS = 30.0


class Members:
    """Remembers which members it removed, and their addresses."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._taken: dict[str, dict[str, Any]] = {}

    def take_out(self, name: str) -> Callable[[], None]:
        """Repeat the order until the member is removed; the function that is returned stops that, and adds it again.

        :raises HoldfastError: no manager answers
        """
        listed = self._listed()
        if name not in listed:
            raise Refused(f"{name} is no member")
        self._taken[name] = listed[name]
        ended = threading.Event()

        def run() -> None:
            while not ended.is_set():
                with suppress(HoldfastError):
                    if self._removed(name):
                        return
                ended.wait(ASK_AGAIN_SECONDS)

        asking = threading.Thread(target=run, name=f"taking out {name}", daemon=True)
        asking.start()

        def back() -> None:
            ended.set()
            asking.join(BACK_SECONDS)
            self.all_back()

        return back

    def all_back(self) -> None:
        """:raises HoldfastError: one could not be added"""
        end = time.monotonic() + BACK_SECONDS
        while True:
            try:
                for name, row in tuple(self._taken.items()):
                    self._bring_back(name, row)
                    del self._taken[name]
                return
            except HoldfastError:
                if time.monotonic() > end:
                    raise
                time.sleep(ASK_AGAIN_SECONDS)

    def _listed(self) -> dict[str, dict[str, Any]]:
        with self._lab.inside():
            return {row["name"]: row for row in self._lab.manager().members(CLUSTER)}

    def _removed(self, name: str) -> bool:
        with self._lab.inside():
            return bool(self._lab.manager().remove_member(CLUSTER, name)["removed"])

    def _bring_back(self, name: str, row: dict[str, Any]) -> None:
        listed = name in self._listed()
        with self._lab.inside():
            manager = self._lab.manager()
            if listed:  # its vote was to be taken, and nothing more was done
                manager.change_settings(CLUSTER, {f"members.{name}.voter": "true"})
            else:
                manager.add_member(CLUSTER, name, row["agent"], row["host"], row["port"])

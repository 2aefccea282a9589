"""Restores a store from a backup: an older version of the record, which etcd still has, replaces the present one.

Managers then decide nothing until an operator has the record repaired: see ``docs/managers.md``.
"""

from __future__ import annotations

import base64
import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from holdfast.errors import HoldfastError, Refused
from holdfast.sandbox.lab.lab import Lab
from holdfast.sandbox.lab.plan import ETCD_PORT
from holdfast.sandbox.local.spec import CLUSTER

REPAIR_SECONDS = 60.0
ASK_AGAIN_SECONDS = 0.5
LOOKS = 4


def versions(lab: Lab) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every version of the record that etcd has, the newest first: its key, the record, and its text (both as etcd's
    HTTP gateway writes them). To be used within ``lab.inside()``.

    :raises OSError: etcd does not answer
    """
    everything = {"key": _b64("\0"), "range_end": _b64("\0")}
    for entry in ask(lab, "range", everything).get("kvs", []):
        if _record(entry) is None:
            continue
        revision = int(entry["mod_revision"])
        for _ in range(int(entry["version"])):
            old = ask(lab, "range", {"key": entry["key"], "revision": revision}).get("kvs", [])
            record = _record(old[0]) if old else None
            if record is None:
                return
            yield entry["key"], record, old[0]["value"]
            revision = int(old[0]["mod_revision"]) - 1
        return


def put_back(lab: Lab, draw: float) -> None:
    """End all managers, replace the record by an older one, and start them again.

    :param draw: 0 to 1, how far back
    :raises Refused: there is no older one
    """
    managers = [host for host in lab.hosts() if host.startswith("manager")]
    for host in managers:
        with suppress(Refused):
            lab.kill_manager(host)
    try:
        with lab.inside():
            found = list(versions(lab))
            if len(found) < 2:
                raise Refused("the store has no older record")
            key, _, text = found[1 + int(draw * (len(found) - 1))]
            ask(lab, "put", {"key": key, "value": text})
    except OSError as error:
        raise Refused(f"etcd does not answer: {error}") from None
    finally:
        for host in managers:
            lab.start_host(host)


def repair(lab: Lab) -> None:
    """Repair, where a manager asks for it, as often as it takes: members may be away meanwhile.

    :raises HoldfastError: it is refused still
    """
    end = time.monotonic() + REPAIR_SECONDS
    asks_for_nothing = 0  # a manager that has just begun to lead has not compared yet
    while asks_for_nothing < LOOKS:
        try:
            if "store repair" in str(lab.status()["reason"]):
                asks_for_nothing = 0
                with lab.inside():
                    lab.manager().repair_store(CLUSTER)
            else:
                asks_for_nothing += 1
        except HoldfastError:
            if time.monotonic() > end:
                raise
        time.sleep(ASK_AGAIN_SECONDS)


def ask(lab: Lab, what: str, question: dict[str, Any]) -> dict[str, Any]:
    """:raises OSError: etcd does not answer"""
    node = next(host for host in lab.hosts() if host.startswith("etcd"))
    url = f"http://{lab.address(node)}:{ETCD_PORT}/v3/kv/{what}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(
        urllib.request.Request(url, json.dumps(question).encode()), timeout=5
    ) as reply:
        return dict(json.load(reply))


def _record(entry: dict[str, Any]) -> dict[str, Any] | None:
    """None: the key holds something else."""
    try:
        value = json.loads(base64.b64decode(entry.get("value", "")))
    except ValueError:
        return None
    return value if isinstance(value, dict) and {"primary", "elected"} <= value.keys() else None


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()

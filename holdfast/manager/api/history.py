"""Shows the history; any manager of the cluster can, whether it leads or not.

GET /v1/clusters/{name}/history?most=N    -> {"entries": [core.history.entry.head, …]}, the newest first; of one that
                                             cannot be read {"number", "unreadable": why}
GET /v1/clusters/{name}/history/{number}  -> core.history.entry.Entry
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Response

from holdfast.core.history.entry import to_json
from holdfast.http.serving import json_response, of_cluster
from holdfast.manager.listeners.history import History
from holdfast.store.base import ENTRIES_KEPT

SHOWN = 20


def add_history(app: FastAPI, histories: Mapping[str, History]) -> None:
    @app.get("/v1/clusters/{name}/history")
    async def history(
        name: str, most: Annotated[int, Query(ge=1, le=ENTRIES_KEPT)] = SHOWN
    ) -> dict[str, list[dict[str, Any]]]:
        """Returns failovers, switchovers, restarts in place, orders and verifications, the newest first."""
        return {"entries": await of_cluster(histories, name).newest(most)}

    @app.get("/v1/clusters/{name}/history/{number}")
    async def entry(name: str, number: int) -> Response:
        """Returns one entry with all details."""
        if (
            not 0 < number < 10**9
            or (found := await of_cluster(histories, name).entry(number)) is None
        ):
            raise HTTPException(
                404,
                f"the history of {name} has no entry {number} (any more): see holdfast history",
            )
        return json_response(to_json(found))

"""A client of the manager's HTTP API."""

from __future__ import annotations

from typing import Any

import httpx

from holdfast.errors import BadInput, OutcomeUnknown, Refused, Unreachable

TIMEOUT_SECONDS = 5.0


class ManagerClient:
    """One manager. Every call has a deadline; all of them only read."""

    def __init__(self, url: str, token: str | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise BadInput("--manager", f"{url} must start with http:// or https://")
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # proxies of the environment are not for the hosts of a cluster
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False
        )

    def clusters(self) -> list[str]:
        return list(self._get("/v1/clusters")["clusters"])

    def status(self, cluster: str) -> dict[str, Any]:
        return self._get(f"/v1/clusters/{cluster}/status")

    def events(self, cluster: str, since: int, wait_seconds: float) -> list[dict[str, Any]]:
        """Events after the one numbered ``since``, at once when there are any."""
        path = f"/v1/clusters/{cluster}/events"
        reply = self._get(path, wait_seconds, since=since, wait=wait_seconds)
        return list(reply["events"])

    def close(self) -> None:
        self._http.close()

    def _get(self, path: str, wait_seconds: float = 0.0, **query: float) -> dict[str, Any]:
        try:
            reply = self._http.get(path, params=query, timeout=wait_seconds + TIMEOUT_SECONDS)
            if reply.status_code == 200:
                answer: dict[str, Any] = reply.json()
                return answer
        except httpx.TransportError as error:
            raise Unreachable(f"the manager at {self.url} does not answer: {error}") from None
        except ValueError:
            raise OutcomeUnknown(
                f"{self.url}{path} answered with something else than JSON"
            ) from None
        if reply.status_code in (401, 403):
            raise BadInput("--token-file", f"the manager at {self.url} does not accept the token")
        raise Refused(f"the manager at {self.url} answered {reply.status_code}: {_message(reply)}")


def _message(reply: httpx.Response) -> str:
    try:
        said = reply.json()
    except ValueError:
        return reply.text.strip()[:300]
    if isinstance(said, dict):
        return str(said.get("message") or said.get("detail") or said)
    return str(said)

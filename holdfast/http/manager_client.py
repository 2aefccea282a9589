"""A client of the manager's HTTP API."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from holdfast import tls
from holdfast.core.commands import Clone, Restart, answered_within
from holdfast.errors import BadInput, HoldfastError, OutcomeUnknown, Refused, Unreachable

TIMEOUT_SECONDS = 5.0
DESTROYED_SECONDS = 20.0
CHECK_SECONDS = 25.0
ADOPT_SECONDS = 200.0
CLONE_SECONDS = answered_within(Clone) + TIMEOUT_SECONDS
RESTART_SECONDS = answered_within(Restart) + 2 * TIMEOUT_SECONDS
"""A little more than the manager gives an agent; the last one may wait for another command first."""
SWITCHING_SECONDS = 10.0
"""What the begin of a switchover takes, in addition to the requested waiting."""

FAILURES = (httpx.TransportError, ssl.SSLError)

_ERRORS: dict[str, type[HoldfastError]] = {
    kind.__name__: kind for kind in (BadInput, Refused, Unreachable, OutcomeUnknown)
}


class ManagerClient:
    """One manager. Every call has a deadline; the manager's errors are raised here again."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        context: ssl.SSLContext | None = None,
        seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        """:param context: for TLS, with this process's certificate; else the system's authorities are trusted
        :param seconds: after which a silent manager counts as one that does not answer
        """
        if not url.startswith(("http://", "https://")):
            raise BadInput("--manager", f"{url} must start with http:// or https://")
        self.url = url.rstrip("/")
        self._seconds = seconds
        shown = tls.Credentials(token, context)
        # proxies of the environment are not for the hosts of a cluster
        self._http = httpx.Client(
            base_url=self.url,
            headers=shown.headers,
            verify=shown.verify,
            timeout=seconds,
            trust_env=False,
        )

    def clusters(self) -> list[str]:
        return list(self._get("/v1/clusters")["clusters"])

    def leader(self, cluster: str) -> dict[str, Any]:
        """``leads``: whether this manager does; ``name`` and ``url`` of the one that does, "" where it is not known."""
        return self._get(f"/v1/clusters/{cluster}/leader")

    def status(self, cluster: str) -> dict[str, Any]:
        return self._get(f"/v1/clusters/{cluster}/status")

    def events(self, cluster: str, since: int, wait_seconds: float) -> list[dict[str, Any]]:
        """Events after the one numbered ``since``, at once when there are any."""
        path = f"/v1/clusters/{cluster}/events"
        reply = self._get(path, wait_seconds, since=since, wait=wait_seconds)
        return list(reply["events"])

    def settings(self, cluster: str) -> dict[str, Any]:
        """``version``, and ``settings``: key, value, text, source and meaning of each."""
        return self._get(f"/v1/clusters/{cluster}/settings")

    def change_settings(
        self,
        cluster: str,
        pairs: Mapping[str, Any],
        unset: Sequence[str] = (),
        expected: int | None = None,
    ) -> dict[str, Any]:
        """All or nothing; ``notes`` of the answer say what the chosen values give up."""
        body = {"set": dict(pairs), "unset": list(unset), "expected": expected}
        return self._post(f"/v1/clusters/{cluster}/settings", body)

    def members(self, cluster: str) -> list[dict[str, Any]]:
        return list(self._get(f"/v1/clusters/{cluster}/members")["members"])

    def add_member(
        self, cluster: str, name: str, agent: str, host: str = "", port: int = 0
    ) -> dict[str, Any]:
        body = {"name": name, "agent": agent, "host": host, "port": port}
        return self._post(f"/v1/clusters/{cluster}/members", body)

    def remove_member(self, cluster: str, name: str, destroyed: bool = False) -> dict[str, Any]:
        """Call it until the answer's ``removed`` is true; ``waiting`` says what is awaited.

        :param destroyed: its host will never answer again
        """
        body = {"destroyed": True} if destroyed else {}
        seconds = DESTROYED_SECONDS if destroyed else TIMEOUT_SECONDS
        return self._post(f"/v1/clusters/{cluster}/members/{name}/remove", body, seconds)

    def clone_member(
        self, cluster: str, name: str, donor: str = "", discard: bool = False
    ) -> dict[str, Any]:
        """Returns when the clone has begun."""
        body = {"donor": donor, "discard": discard}
        return self._post(f"/v1/clusters/{cluster}/members/{name}/clone", body, CLONE_SECONDS)

    def confirm_member(self, cluster: str, name: str) -> dict[str, Any]:
        return self._post(f"/v1/clusters/{cluster}/members/{name}/confirm", {})

    def repair_store(
        self, cluster: str, dry_run: bool = False, accept_loss: str = "", source: str = ""
    ) -> dict[str, Any]:
        """As ``manager.people.repair.RepairReply``.

        :param accept_loss: the cluster's name, if the operator accepts the risk
        """
        body = {"dry_run": dry_run, "accept_loss": accept_loss, "source": source}
        return self._post(f"/v1/clusters/{cluster}/store/repair", body)

    def restart_member(self, cluster: str, name: str, waiting: bool = False) -> dict[str, Any]:
        """:param waiting: the restart may let writes wait, if they must"""
        path = f"/v1/clusters/{cluster}/members/{name}/restart"
        return self._post(path, {"waiting": waiting}, RESTART_SECONDS)

    def verify_member(self, cluster: str, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Returns when the verification has begun; see ``manager/people/verifier.py``."""
        return self._post(f"/v1/clusters/{cluster}/members/{name}/verify", dict(asked))

    def verification(self, cluster: str, name: str) -> dict[str, Any]:
        """The results of its last verification: ``began``, ``ended``, ``primary``, and ``results`` by table;
        ``different``: in how many tables."""
        return self._get(f"/v1/clusters/{cluster}/members/{name}/verification")

    def fail_over(
        self, cluster: str, to: str = "", accept_loss: str = "", skip_stop_hook: bool = False
    ) -> dict[str, Any]:
        """Returns when the failover has begun.

        :param accept_loss: the cluster's name, if the operator accepts the risk
        """
        body = {"to": to, "accept_loss": accept_loss, "skip_stop_hook": skip_stop_hook}
        return self._post(f"/v1/clusters/{cluster}/failover", body)

    def switch_over(
        self, cluster: str, to: str = "", *, seconds: float = 30.0, **more: Any
    ) -> dict[str, Any]:
        """``to`` and ``event`` once it has begun; with ``dry_run`` the member that would take over, and what is
        ``against`` it; with ``at`` that it is planned, with ``detach`` what happened within a moment."""
        body = {"to": to, "seconds": seconds, **more}
        return self._post(f"/v1/clusters/{cluster}/switchover", body, seconds + SWITCHING_SECONDS)

    def cancel_switchover(self, cluster: str, waiting: bool = False) -> dict[str, Any]:
        """Cancel the switchover that waits, is under way, or is planned.

        :param waiting: only one that waits
        """
        path = f"/v1/clusters/{cluster}/switchover{'?waiting=true' if waiting else ''}"
        return self._answer_to("DELETE", path, None, TIMEOUT_SECONDS)

    def pause(self, cluster: str, reason: str, seconds: float | None = None) -> dict[str, Any]:
        body = {"reason": reason, "seconds": seconds}
        return self._post(f"/v1/clusters/{cluster}/pause", body)

    def resume(self, cluster: str) -> dict[str, Any]:
        return self._post(f"/v1/clusters/{cluster}/resume", {})

    def history(self, cluster: str, most: int) -> list[dict[str, Any]]:
        """Heads of the newest entries, the newest first."""
        return list(self._get(f"/v1/clusters/{cluster}/history", most=most)["entries"])

    def history_entry(self, cluster: str, number: int) -> dict[str, Any]:
        """As ``core.history.entry.to_json``."""
        return self._get(f"/v1/clusters/{cluster}/history/{number}")

    def check(self, cluster: str) -> dict[str, Any]:
        """What is right and wrong with each member, as ``core.check.findings.CheckReport``."""
        return self._get(f"/v1/clusters/{cluster}/check", CHECK_SECONDS)

    def adopt(
        self, cluster: str, members: Mapping[str, str], primary: str = "", dry_run: bool = True
    ) -> dict[str, Any]:
        """Take over a cluster that runs: ``plan``, all that stands ``against`` it, and whether it is ``done``."""
        body = {"dry_run": dry_run, "primary": primary, "members": dict(members)}
        return self._post(f"/v1/clusters/{cluster}/adopt", body, ADOPT_SECONDS)

    def close(self) -> None:
        self._http.close()

    def _get(self, path: str, wait_seconds: float = 0.0, **query: float) -> dict[str, Any]:
        try:
            reply = self._http.get(path, params=query, timeout=wait_seconds + self._seconds)
        except FAILURES as error:
            raise self._silent(error) from None
        return self._answer(path, reply)

    def _post(
        self, path: str, body: dict[str, Any], seconds: float = TIMEOUT_SECONDS
    ) -> dict[str, Any]:
        return self._answer_to("POST", path, body, seconds)

    def _answer_to(
        self, method: str, path: str, body: dict[str, Any] | None, seconds: float
    ) -> dict[str, Any]:
        timeout = httpx.Timeout(seconds, connect=TIMEOUT_SECONDS)
        try:
            reply = self._http.request(method, path, json=body, timeout=timeout)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._silent(error) from None
        except FAILURES as error:
            if tls.refused_certificate(error):
                raise self._silent(error) from None
            raise OutcomeUnknown(
                f"the manager at {self.url} has not answered ({error or type(error).__name__}): look "
                "at the status before asking again"
            ) from None
        return self._answer(path, reply)

    def _unknown(self) -> str:
        if "Authorization" in self._http.headers:
            return f"the manager at {self.url} does not accept the token: it is not that of its token_file"
        return (
            f"the manager at {self.url} wants a token, and none was given: name the file that holds it (or set "
            "HOLDFAST_TOKEN_FILE)"
        )

    def _silent(self, error: Exception) -> Unreachable:
        if said := tls.explain(error):
            return Unreachable(f"the manager at {self.url}: {said}")
        if isinstance(error, httpx.RemoteProtocolError) and self.url.startswith("http://"):
            why = f"{error}: does its URL begin with https://?"
            return Unreachable(f"the manager at {self.url} does not answer: {why}")
        return Unreachable(f"the manager at {self.url} does not answer: {error}")

    def _answer(self, path: str, reply: httpx.Response) -> dict[str, Any]:
        try:
            said = reply.json()
        except ValueError:
            said = None
        if reply.status_code == httpx.codes.OK:
            if isinstance(said, dict):
                return said
            raise OutcomeUnknown(f"{self.url}{path} answered with something else than JSON")
        if reply.status_code == httpx.codes.UNAUTHORIZED:
            raise BadInput("--token-file", self._unknown())
        if isinstance(said, dict) and (kind := _ERRORS.get(str(said.get("error")))):
            if kind is BadInput and "key" in said:
                raise BadInput(str(said["key"]), str(said["wrong"]))
            # a manager of an earlier version names no key
            raise (Refused if kind is BadInput else kind)(str(said.get("message")))
        raise Refused(f"the manager at {self.url} answered {reply.status_code}: {_message(reply)}")


def _message(reply: httpx.Response) -> str:
    try:
        said = reply.json()
    except ValueError:
        return reply.text.strip()[:300]
    if isinstance(said, dict):
        return str(said.get("message") or said.get("detail") or said)
    return str(said)

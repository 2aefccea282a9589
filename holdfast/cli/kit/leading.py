"""Finds the leading manager among several."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass

from holdfast.cli.kit.connection import only_cluster
from holdfast.errors import HoldfastError, Unreachable
from holdfast.http.manager_client import ManagerClient

PROBE_SECONDS = 0.8
"""A manager that has not answered by then is skipped."""


@dataclass(frozen=True, slots=True)
class _Answer:
    url: str
    cluster: str
    leads: bool


def find(
    urls: Sequence[str], token: str | None, context: ssl.SSLContext | None, cluster: str | None
) -> tuple[ManagerClient, str]:
    """The leading manager, else the first that answers; and the name of the cluster. All are asked at once.

    :raises Unreachable: none answers
    :raises BadInput: an answer shows that the option is wrong
    """

    def ask(url: str) -> _Answer:
        with closing(ManagerClient(url, token, context, PROBE_SECONDS)) as client:
            name = cluster or only_cluster(client)
            return _Answer(url, name, bool(client.leader(name)["leads"]))

    found = _asked(ask, urls)
    return ManagerClient(found.url, token, context), found.cluster


def _asked(ask: Callable[[str], _Answer], urls: Sequence[str]) -> _Answer:
    answers: dict[str, _Answer] = {}
    errors: dict[str, HoldfastError] = {}
    with ThreadPoolExecutor(len(urls)) as pool:
        asked: dict[Future[_Answer], str] = {pool.submit(ask, url): url for url in urls}
        for done in as_completed(asked):
            try:
                answers[asked[done]] = answer = done.result()
            except HoldfastError as error:
                errors[asked[done]] = error
                continue
            if answer.leads:
                pool.shutdown(wait=False)
                return answer
    for url in urls:
        if url in answers:
            return answers[url]
    for url in urls:
        if not isinstance(errors[url], Unreachable):
            raise errors[url]
    raise Unreachable("; ".join(str(errors[url]) for url in urls))

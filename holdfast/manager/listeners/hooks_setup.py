"""Builds what a cluster's ``hooks:`` in the manager's file ask for."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.config.hooks import HooksConfig, WebhookConfig, missing
from holdfast.config.load import secret
from holdfast.endpoint.contract import HookLogin
from holdfast.endpoint.hooks import Hook
from holdfast.endpoint.webhook import Webhook, WebhookSender, key
from holdfast.errors import BadInput
from holdfast.manager.leader.events import EventLog
from holdfast.manager.listeners.addresses import Addresses
from holdfast.manager.listeners.hooks import Hooks, configured
from holdfast.manager.listeners.reports import Reporter


@dataclass(frozen=True, slots=True)
class Outsiders:
    """The hooks and webhooks, checked: all their files exist.

    :ivar ended: set when this manager ends; :ivar clock: this manager's
    """

    hooks: dict[str, Hook]
    login: HookLogin
    senders: tuple[WebhookSender, ...]
    ended: threading.Event
    clock: Clock

    @classmethod
    def by(cls, config: HooksConfig, where: str, clock: Clock = SYSTEM_CLOCK) -> Outsiders:
        """:param where: the key in the file
        :raises BadInput: an executable or a file is not there, or cannot be used
        """
        for trouble in missing(config, where):
            raise trouble
        ended = threading.Event()
        senders = tuple(
            _sender(each, f"{where}.webhooks.{number}", ended, clock)
            for number, each in enumerate(config.webhooks)
        )
        login = HookLogin(config.ssh_user, config.user)
        return cls(configured(config, where), login, senders, ended, clock)

    def of(self, events: EventLog, look_again: Callable[[], None]) -> tuple[Hooks, Reporter]:
        clock = self.clock
        addresses = Addresses(clock)
        hooks = Hooks(self.hooks, self.login, addresses, events, look_again, clock)
        reporter = Reporter(addresses, events, self.hooks.get("report"), self.senders, self.ended)
        return hooks, reporter


def _sender(
    config: WebhookConfig, where: str, ended: threading.Event, clock: Clock
) -> WebhookSender:
    webhook = Webhook(config.url, ca=str(config.ca) if config.ca else None)
    if config.secret_file is not None:
        file = f"{where}.secret_file"
        try:
            webhook = Webhook(config.url, key(secret(config.secret_file, file)), webhook.ca)
        except ValueError as error:
            raise BadInput(file, str(error)) from None
    try:
        return WebhookSender(webhook, ended, clock=clock)
    except (OSError, ssl.SSLError) as error:
        raise BadInput(f"{where}.ca", f"cannot use {config.ca}: {error}") from None

"""The plan of a lab of hosts, and the kernel's rules for its faults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from holdfast.config.schema import LeaseConfig, ManagerConfig
from holdfast.core.gtid import Flavor
from holdfast.errors import BadInput, Refused
from holdfast.sandbox.lab import tools
from holdfast.sandbox.lab.files import agent_extras, manager_settings
from holdfast.sandbox.lab.lab import Lab
from holdfast.sandbox.lab.links.faults import Link, read_links, ruleset, write_links
from holdfast.sandbox.lab.plan import LabPlan, LabShape, new_plan, read_saved, write_saved


@pytest.fixture
def plan(tmp_path: Path) -> LabPlan:
    made = new_plan(tmp_path / "lab", LabShape(Flavor.MARIADB, 3, 3, None, None, True))
    made.dir.mkdir()
    return made


def test_every_host_has_an_address_of_its_own(plan: LabPlan) -> None:
    assert plan.hosts == (
        "m1", "m2", "m3", "manager1", "manager2", "manager3", "etcd1", "etcd2", "etcd3", "client",
    )  # fmt: skip
    addresses = {plan.address(host) for host in plan.hosts} | {plan.bridge_address}
    assert len(addresses) == len(plan.hosts) + 1


def test_managers_and_agents_accept_what_a_lab_writes(plan: LabPlan, tmp_path: Path) -> None:
    managers = [ManagerConfig.model_validate(manager_settings(plan, m)) for m in plan.managers]
    assert [each.name for each in managers] == list(plan.managers)
    assert managers[0].store.endpoints == tuple(
        f"http://{plan.address(node)}:2379" for node in plan.etcds
    )
    assert [(m.host, m.port) for m in managers[0].clusters[0].members] == [
        (each.host, each.port) for each in plan.members
    ]
    alone = new_plan(tmp_path / "alone", LabShape(Flavor.MYSQL, 1, 1, None, None, False))
    assert ManagerConfig.model_validate(manager_settings(alone, "manager1")).store.path
    LeaseConfig.model_validate(agent_extras(plan)["lease"])
    assert "lease" not in agent_extras(alone)


def test_managers_and_agents_accept_what_a_lab_with_haproxy_writes(tmp_path: Path) -> None:
    made = new_plan(tmp_path / "lab", LabShape(Flavor.MYSQL, 3, 1, None, None, True, haproxy=True))
    assert made.hosts[-2:] == ("haproxy", "client")
    said = ManagerConfig.model_validate(manager_settings(made, "manager1")).clusters[0].endpoints
    assert [proxy.called for proxy in said.haproxy] == ["haproxy"]
    assert said.checks == {m.name: f"{m.host}:{m.checks_port}" for m in made.members}
    made.dir.mkdir()
    write_saved(made)
    assert read_saved(made.dir) == made


def test_one_manager_keeps_its_record_without_etcd(tmp_path: Path) -> None:
    made = new_plan(tmp_path / "lab", LabShape(Flavor.MYSQL, 1, 1, None, None, True))
    assert made.hosts == ("m1", "manager1", "client")


def test_two_labs_share_no_name(tmp_path: Path) -> None:
    plans = [new_plan(tmp_path / x, LabShape(Flavor.MYSQL, 1, 1, None, None, True)) for x in "ab"]
    names = [{p.cell_root, str(p.sockets), *map(p.namespace, p.hosts)} for p in plans]
    assert not names[0] & names[1]


def test_a_plan_survives_in_its_file(plan: LabPlan) -> None:
    write_saved(plan)
    assert read_saved(plan.dir) == plan


@pytest.mark.parametrize("text", ["", "{}", '{"id": "../x"}', "[]"])
def test_a_damaged_file_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "lab.json").write_text(text)
    with pytest.raises(BadInput, match=r"lab\.json"):
        read_saved(tmp_path)


@pytest.mark.parametrize(
    ("members", "managers", "key"), [(0, 3, "--members"), (8, 3, "--members"), (3, 6, "--managers")]
)
def test_numbers_out_of_bounds_are_refused(
    tmp_path: Path, members: int, managers: int, key: str
) -> None:
    with pytest.raises(BadInput, match=key):
        new_plan(tmp_path / "lab", LabShape(Flavor.MARIADB, members, managers, None, None, True))


@pytest.mark.parametrize(
    ("text", "other", "hosts"),
    [
        ("m1", "", ("m1",)),
        ("m1, m2", "", ("m1", "m2")),
        ("all", "m1,m2,m3,etcd1,etcd2,etcd3", ("manager1", "manager2", "manager3", "client")),
    ],
)
def test_groups_of_hosts(plan: LabPlan, text: str, other: str, hosts: tuple[str, ...]) -> None:
    assert plan.group(text, other) == hosts


@pytest.mark.parametrize("text", ["m4", "m1,", ""])
def test_a_host_that_is_not_there_is_named(plan: LabPlan, text: str) -> None:
    with pytest.raises(BadInput, match="it has m1, m2, m3, manager1"):
        plan.group(text)


ADDRESSES = {"m1": "10.86.0.1", "m2": "10.86.0.2"}


def rules(links: dict[tuple[str, str], Link]) -> list[str]:
    """The rules without the tables around them."""
    lines = [line.strip() for line in ruleset(links, ADDRESSES).splitlines()]
    return [line for line in lines if line.endswith("drop") or " fwd to " in line]


def test_a_sound_network_has_no_rule() -> None:
    assert rules({}) == []
    assert "delete table bridge" in ruleset({}, ADDRESSES)


def test_a_cut_goes_one_way() -> None:
    assert rules({("m1", "m2"): Link(cut=True)}) == ['iifname "m1" oifname "m2" counter drop']


def test_loss_is_by_chance() -> None:
    (rule,) = rules({("m1", "m2"): Link(loss=0.125)})
    assert rule == 'iifname "m1" oifname "m2" numgen random mod 10000 < 1250 counter drop'


def test_what_is_late_and_lost_is_lost_before_it_is_held_back() -> None:
    assert rules({("m1", "m2"): Link(loss=0.5, delay_ms=20)}) == [
        "ip daddr 10.86.0.2 numgen random mod 10000 < 5000 counter drop",
        'ip daddr 10.86.0.2 fwd to "relay"',
    ]


def test_what_is_cut_is_not_held_back() -> None:
    late = Link(cut=True, delay_ms=20)
    assert rules({("m1", "m2"): late}) == ['iifname "m1" oifname "m2" counter drop']


def test_links_survive_in_their_file(tmp_path: Path) -> None:
    path = tmp_path / "links.json"
    assert read_links(path) == {}
    links = {("m1", "m2"): Link(loss=0.5), ("m2", "m1"): Link(cut=True, delay_ms=5, jitter_ms=1)}
    write_links(path, links)
    assert read_links(path) == links


def test_what_a_lab_lacks_is_said_at_once_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(tools, "NEEDED", {"no-such-program": "no-package"})
    with pytest.raises(Refused, match=r"needs root \(.*1000\), no-such-program \(no-package\)"):
        Lab.create(tmp_path / "lab", LabShape(Flavor.MARIADB))
    assert not (tmp_path / "lab").exists()


def test_a_lab_is_not_another_than_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: LabPlan
) -> None:
    monkeypatch.setattr("holdfast.sandbox.lab.lab.refuse_without", lambda: None)
    write_saved(plan)
    assert Lab.create(plan.dir, LabShape(Flavor.MARIADB)).plan == plan
    others: list[tuple[str, dict[str, Any]]] = [
        ("--members", {"size": 5}),
        ("--managers", {"managers": 1}),
        ("--gate", {"gate": False}),
        ("--settings", {"settings": {"lease": "2s"}}),
    ]
    for key, changed in others:
        with pytest.raises(BadInput, match=key):
            Lab.create(plan.dir, LabShape(Flavor.MARIADB, **changed))

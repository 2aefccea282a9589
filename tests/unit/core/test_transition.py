"""What is under way, as it is stored: each kind reads and writes what the version before it had a class of its own did.

Managers of both versions may work by turns, amid an upgrade.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import pytest

from holdfast.core.record import from_json, to_json
from holdfast.core.transition import (
    Bootstrap,
    Failover,
    Instant,
    RestartInPlace,
    Step,
    Strengthen,
    Switchover,
    Transition,
    TransitionKind,
)
from tests.unit.looks import RECORD

LATER = Instant("k1", 12.5)

WRITTEN_BEFORE: list[tuple[str, Transition]] = [
    (
        '{"kind": "bootstrap", "step": "open", "deposed": "", "lossy": false, '
        '"wish": "", "ordered": false, "until": null, "drained": "", "skip_stop": false}',
        Bootstrap(),
    ),
    (
        '{"kind": "failover", "step": "elect", "deposed": "m1", "lossy": true, '
        '"wish": "m3", "ordered": true, "until": null, "drained": "", "skip_stop": true}',
        Failover(Step.ELECT, "m1", lossy=True, wish="m3", ordered=True, skip_stop=True),
    ),
    (
        '{"kind": "failover", "step": "open", "deposed": "m1", "lossy": false, '
        '"wish": "", "ordered": false, "until": null, "drained": "", "skip_stop": false}',
        Failover(Step.OPEN, "m1"),
    ),
    (
        '{"kind": "restart", "step": "close", "deposed": "", "lossy": false, '
        '"wish": "", "ordered": false, "until": null, "drained": "", "skip_stop": false}',
        RestartInPlace(Step.CLOSE),
    ),
    (
        '{"kind": "restart", "step": "open", "deposed": "", "lossy": false, '
        '"wish": "", "ordered": false, "until": null, "drained": "", "skip_stop": false}',
        RestartInPlace(Step.OPEN),
    ),
    (
        '{"kind": "restart", "step": "open", "deposed": "", "lossy": true, '
        '"wish": "", "ordered": true, "until": null, "drained": "", "skip_stop": false}',
        RestartInPlace(Step.OPEN, lossy=True, ordered=True),
    ),
    (
        '{"kind": "strengthen", "step": "prove", "deposed": "", "lossy": false, '
        '"wish": "", "ordered": false, "until": null, "drained": "", "skip_stop": false}',
        Strengthen(),
    ),
    (
        '{"kind": "switchover", "step": "chain", "deposed": "", "lossy": false, '
        '"wish": "m2", "ordered": true, "until": {"boot": "k1", "at": 12.5}, "drained": "", "skip_stop": false}',
        Switchover(Step.CHAIN, "m2", LATER),
    ),
    (
        '{"kind": "switchover", "step": "freeze", "deposed": "", "lossy": false, '
        '"wish": "m2", "ordered": true, "until": {"boot": "k1", "at": 12.5}, "drained": "", "skip_stop": false}',
        Switchover(Step.FREEZE, "m2", LATER),
    ),
    (
        '{"kind": "switchover", "step": "open", "deposed": "m1", "lossy": false, '
        '"wish": "m2", "ordered": true, "until": null, "drained": "0-1-40", "skip_stop": false}',
        Switchover(Step.OPEN, "m2", deposed="m1", drained="0-1-40"),
    ),
]
"""As the last version wrote them in which one class had the fields of all kinds."""

OF_A_SWITCHOVER = WRITTEN_BEFORE[-2][0]


def stored(transition: str) -> str:
    return json.dumps(json.loads(to_json(RECORD)) | {"transition": json.loads(transition)})


@pytest.mark.parametrize(("text", "transition"), WRITTEN_BEFORE)
def test_what_the_version_before_wrote_is_read(text: str, transition: Transition) -> None:
    assert from_json(stored(text)) == replace(RECORD, transition=transition)


@pytest.mark.parametrize(("text", "transition"), WRITTEN_BEFORE)
def test_the_version_before_reads_what_is_written(text: str, transition: Transition) -> None:
    assert to_json(replace(RECORD, transition=transition)) == stored(text)


def test_each_kind_and_step_is_among_them() -> None:
    kinds = {type(transition) for _, transition in WRITTEN_BEFORE}
    assert kinds == set(get_args(Transition))
    assert {transition.kind for _, transition in WRITTEN_BEFORE} == set(TransitionKind)
    assert {transition.step for _, transition in WRITTEN_BEFORE} == set(Step)


@pytest.mark.parametrize(
    ("text", "transition"),
    [
        ({"kind": "failover", "step": "open", "deposed": "m1"}, Failover(Step.OPEN, "m1")),
        ({"kind": "restart", "step": "open", "deposed": ""}, RestartInPlace(Step.OPEN)),
        (
            {"kind": "switchover", "step": "chain", "deposed": "", "wish": "m2", "until": 1.7e9},
            Switchover(Step.CHAIN, "m2", Instant("", 0.0)),
        ),
    ],
)
def test_what_lacks_later_keys_is_read(text: dict[str, Any], transition: Transition) -> None:
    assert from_json(stored(json.dumps(text))).transition == transition


@pytest.mark.parametrize("kind", TransitionKind)
@pytest.mark.parametrize("step", Step)
def test_a_step_that_a_kind_does_not_have_is_refused(kind: TransitionKind, step: Step) -> None:
    text = json.dumps(json.loads(OF_A_SWITCHOVER) | {"kind": kind, "step": step})
    known = {(transition.kind, transition.step) for _, transition in WRITTEN_BEFORE}
    if (kind, step) in known:
        assert from_json(stored(text)).transition is not None
    else:
        with pytest.raises(ValueError, match=f"a {kind} has no step {step}"):
            from_json(stored(text))

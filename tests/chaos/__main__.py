"""``python -m tests.chaos --seed S --minutes M --server mariadb|mysql``: a lab of hosts under random faults, checked.

Time is divided into epochs: clients work, faults happen and are healed, and everything that clients were told is
checked. ``checker.py`` defines the claims. The seed gives the same faults again; what they meet is up to the machine.

Exit status: 0 every claim held in every epoch; 1 otherwise: the folder with logs and histories is left, and named.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from holdfast.core.gtid import Flavor
from holdfast.errors import HoldfastError
from holdfast.sandbox.demo import SIGNALS, Interrupted, catch_signals, on_stderr
from holdfast.sandbox.lab.lab import Lab
from holdfast.sandbox.lab.plan import AGENT_PORT, LabShape
from holdfast.sandbox.waiting import remove_quietly
from tests.chaos import report, store
from tests.chaos.epoch import Epoch, Runner
from tests.chaos.faults import Harm
from tests.chaos.verdict import Kind


def main() -> int:
    options = _options()
    print(f"chaos: seed {options.seed}, {options.server}, {options.minutes:g} min", flush=True)
    catch_signals()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-chaos-"))
    lab: Lab | None = None
    good = False
    try:
        settings = dict(options.set)
        lab = Lab.create(
            folder / "lab",
            LabShape(
                Flavor(options.server),
                options.members,
                options.managers,
                settings={"failovers_per_hour": 0, **settings},
                gate=not options.no_gate,
            ),
            on_stderr,
        )
        lab.up()
        good = _chaos(lab, folder, options)
    except Interrupted as interrupted:
        print("interrupted", file=sys.stderr)
        return 128 + interrupted.number
    except HoldfastError as error:
        print(f"chaos: {error}", file=sys.stderr)
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if lab is not None:
            if not good:
                _keep(lab, folder, options)
            remove_quietly(lab)
        if good:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if good else 1


def _chaos(lab: Lab, folder: Path, options: argparse.Namespace) -> bool:
    runner = Runner(lab, folder, options.beyond, frozenset(options.without))
    orders = {"writers": options.writers, "readers": options.readers, "pause": options.pause}
    begun = time.monotonic()
    left = options.minutes * 60
    epochs: list[dict[str, Any]] = []
    good = True
    while good and (left >= 10 or not epochs):
        number = len(epochs) + options.first
        seed = f"{options.seed}/{number}"
        print(f"epoch {number}: seed {seed}", flush=True)
        epoch = runner.run(number, seed, min(options.epoch, max(10.0, left)), orders)
        epochs.append(report.of_epoch(epoch))
        _tell(epoch, epochs[-1])
        good = _accepted(epoch, options.beyond)
        left = options.minutes * 60 - (time.monotonic() - begun)
    summary = {
        "seed": options.seed,
        "server": options.server,
        "members": options.members,
        "managers": options.managers,
        "beyond": options.beyond,
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "good": good,
        **report.of_all(epochs),
    }
    print(json.dumps(summary), flush=True)
    out = options.out or folder / "report.json"
    out.write_text(json.dumps({**summary, "each": epochs}, indent=1) + "\n")
    return good


def _accepted(epoch: Epoch, beyond: bool) -> bool:
    """Beyond what it claims to survive, a cluster may wait for an operator: but no write may be lost, and no answer
    false."""
    allowed = {Kind.NOT_WHOLE} if beyond else set()
    return epoch.verdict.counts.keys() <= allowed


def _tell(epoch: Epoch, found: dict[str, Any]) -> None:
    whole = found["whole_seconds"]
    print(
        f"epoch {epoch.number}: {found['acknowledged']} acknowledged, {found['unknown']} unknown, "
        f"{found['refused']} refused, {found['reads']} reads; {len(epoch.struck)} faults, "
        f"{found['failovers']} failovers; whole "
        f"{'NOT' if whole is None else f'{whole:.1f} s'} after the last heal: "
        f"{'good' if epoch.verdict.good else 'VIOLATED'}",
        flush=True,
    )
    for kind, count in epoch.verdict.counts.items():
        print(f"  {count} × {kind}")
    for violation in epoch.verdict.violations:
        print(f"  {violation.kind}: {violation.text}", flush=True)


def _keep(lab: Lab, folder: Path, options: argparse.Namespace) -> None:
    """Logs and configurations; data and disks are removed with the lab."""
    kept = folder / "logs"
    kept.mkdir(exist_ok=True)
    for path in (lab.plan.dir / "logs").glob("*.log"):
        shutil.copy2(path, kept)
    for member in lab.members():
        if member.error_log.exists():
            shutil.copy2(member.error_log, kept / f"{member.name}-server.log")
    (kept / "told.json").write_text(json.dumps(_told(lab), indent=1) + "\n")
    print(
        f"FAILED with seed {options.seed}: logs, histories and report are in {folder}",
        file=sys.stderr,
        flush=True,
    )


def _told(lab: Lab) -> dict[str, Any]:
    """The final answers of managers, agents and store."""
    found: dict[str, Any] = {}
    with suppress(HoldfastError):
        found["status"] = lab.status()
    if any(host.startswith("etcd") for host in lab.hosts()):
        with suppress(HoldfastError, OSError):
            found["record"] = next((record for _, record, _ in store.versions(lab)), None)
    headers = {"Authorization": f"Bearer {lab.plan.token_file.read_text().strip()}"}
    for member in lab.members():
        url = f"http://{lab.address(member.name)}:{AGENT_PORT}/v1/state"
        with suppress(httpx.HTTPError, ValueError), lab.inside():
            answer = httpx.get(url, headers=headers, timeout=3, trust_env=False)
            found[member.name] = answer.json()
    return found


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("must be KEY=VALUE")
    return key, value


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    add = parser.add_argument
    add("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    add("--minutes", type=float, default=1.0)
    add("--server", choices=("mariadb", "mysql"), default="mariadb")
    add("--members", type=int, default=3)
    add("--managers", type=int, default=3)
    add("--beyond", action="store_true", help="harm more than the cluster claims to survive")
    add("--first", type=int, default=1, help="number of the first epoch: to run a later one alone")
    add("--without", action="append", type=Harm, default=[], help="leave this harm out")
    add("--epoch", type=float, default=90.0, help="seconds of faults before all is checked")
    add("--writers", type=int, default=6)
    add("--readers", type=int, default=5, help="of each habit")
    add("--pause", type=float, default=0.06, help="seconds between a writer's writes, at most")
    add("--no-gate", action="store_true", help="agents have the kernel close no port")
    add("--set", action="append", type=_pair, default=[], metavar="KEY=VALUE")
    add("--out", type=Path, help="write the report here")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""One entry of the history as text for operators: paragraphs, then the course in milliseconds."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import datetime

from holdfast.cli.show.status import short_gtids
from holdfast.core.history.entry import Entry, Moment, Outcome, Returned, Setup, Sort, What
from holdfast.core.history.verified import TableVerified, Verified

WIDTH = 100
TITLES = {
    What.FAILOVER: "Failover",
    What.SWITCHOVER: "Switchover",
    What.RESTART: "Restart in place",
    What.ORDER: "Order",
    What.ALARM: "Alarm",
    What.VERIFICATION: "Verification",
}


def told(entry: Entry, cluster: str) -> list[str]:
    """The entry as lines of text."""
    lines = [_title(entry), f"{moment(entry.begun, ms=True)}, cluster {cluster}"]
    for paragraph in _paragraphs(entry):
        lines += ["", *textwrap.wrap(paragraph, WIDTH, break_long_words=False)]
    if entry.verification and entry.verification.tables:
        lines += ["", "Tables:", *_tables(entry.verification)]
    if entry.candidates:
        lines += ["", "Who could have taken over:"]
        lines += _columns(
            (each.name, "voter" if each.voter else "learner", each.received, each.reason)
            for each in entry.candidates
        )
    if entry.hooks:
        lines += ["", "Hooks:", *_hooks(entry)]
    if entry.moments:
        lines += [
            "",
            "Course, in ms since it was noticed (of work: when it was done, and how long it took):",
        ]
        lines += [_line(each) for each in sorted(entry.moments, key=lambda each: each.at_ms)]
    if entry.left_out:
        lines.append(f"  ({entry.left_out} lines in the middle were not kept)")
    return [_harmless(each) for each in lines]


def _harmless(line: str) -> str:
    """Servers' errors contain what clients wrote: control characters in it must not reach the terminal."""
    return "".join(each if each.isprintable() or each == "\t" else "?" for each in line)


def moment(at: float, ms: bool = False) -> str:
    """Local time, with the zone's name."""
    when = datetime.fromtimestamp(at).astimezone()
    clock = when.strftime("%Y-%m-%d %H:%M:%S")
    return f"{clock}{f'.{when.microsecond // 1000:03d}' if ms else ''} {when.tzname()}"


def span(ms: float) -> str:
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 120_000:
        return f"{ms / 1000:.1f} s"
    return f"{ms / 60_000:.0f} min" if ms < 7_200_000 else f"{ms / 3_600_000:.1f} h"


def _title(entry: Entry) -> str:
    if not entry.what.is_transition:
        return f"{TITLES[entry.what]} {entry.number}: {entry.cause}"
    change = f"{entry.old} -> {entry.new}" if entry.new else entry.old
    return f"{TITLES[entry.what]} {entry.number}: {change}, {entry.outcome}"


def _paragraphs(entry: Entry) -> Iterator[str]:
    if entry.verification:
        yield _verified(entry.verification)
    if not entry.what.is_transition:
        return
    yield _cause(entry)
    yield _end(entry)
    if failed := [each.text for each in entry.moments if each.sort is Sort.FAILED]:
        shown = "; ".join(dict.fromkeys(failed))
        yield f"On the way failed: {textwrap.shorten(shown, 600, placeholder=' …')}"
    if entry.positions.old or entry.positions.new:
        yield _positions(entry)
    if entry.before:
        yield _configuration(entry.before, entry.after)
    if entry.new and entry.outcome is not Outcome.UNDONE:
        yield _returned(entry, entry.returned)


def _cause(entry: Entry) -> str:
    who = f"Ordered: {entry.ordered}." if entry.ordered else "It began by itself."
    led = ""
    if len(entry.managers) == 1:
        led = f" It was led by the manager {entry.managers[0]}."
    elif entry.managers:
        led = f" It was led by several managers, one after the other: {', '.join(entry.managers)}."
    return f"{entry.old} was the primary. Cause: {entry.cause}. {who}{led}"


def _end(entry: Entry) -> str:
    parts = []
    if entry.named is not None:
        parts.append(f"{entry.new} was named {_after(entry, entry.named)}")
    opened = entry.outage_ms
    if opened is not None and entry.opened is not None:
        parts.append(f"{entry.new or entry.old} took writes {_after(entry, entry.opened)}")
    if entry.whole is not None and entry.outcome is Outcome.DONE:
        parts.append(f"every member was as it should be {_after(entry, entry.whole)}")
    course = f"{_listed(parts)}. " if parts else ""
    match entry.outcome:
        case Outcome.UNDER_WAY:
            return f"{course}It is under way."
        case Outcome.DONE:
            still = "" if entry.whole is not None else " Not every member is as it should be yet."
            writes = ""
            if opened is not None and entry.what is What.SWITCHOVER:
                writes = f"Writes were stopped for {span(opened)}. "
            said = entry.why if entry.opened is None or entry.named is None else ""
            return f"{course}{writes}It was carried through{f': {said}' if said else ''}.{still}"
        case Outcome.UNDONE:
            return f"{course}It was undone {_after(entry, entry.ended)}: {entry.why}."
        case Outcome.REPLACED:
            return f"{course}Before it had ended, something else began {_after(entry, entry.ended)}: {entry.why}."


def _verified(found: Verified) -> str:
    counts = (
        f"tables: {found.equal} equal, {found.different} different, {found.skipped} that cannot be compared "
        f"({found.rows} rows)"
    )
    order = "ordered by an operator" if found.ordered else "begun by the schedule"
    if found.repair:
        order += ", who wants a clone where it differs"
    took = span((found.ended - found.began) * 1000)
    parts = [f"{found.member} against {found.primary}, {order}; it took {took}", counts]
    if found.halted:
        how = "it failed" if found.failed else "it was not carried through"
        parts.append(f"{how}: {found.halted}")
    if found.interrupted:
        parts.append(f"interrupted {found.interrupted} times")
    if found.repeats:
        since = moment(found.since)
        parts.append(f"{found.repeats} verifications before it, since {since}, found the same")
    return f"{'. '.join(parts)}."


def _tables(found: Verified) -> list[str]:
    lines = _columns((each.table, str(each.rows), _compared(each)) for each in found.tables)
    return lines + ([f"  ({found.left_out} more tables)"] if found.left_out else [])


def _compared(table: TableVerified) -> str:
    if table.skipped:
        return f"not compared: {table.skipped}"
    return f"differs: {table.ranges}" if table.ranges else "same"


def _after(entry: Entry, at: float | None) -> str:
    return f"after {span(((at or entry.begun) - entry.begun) * 1000)}"


def _positions(entry: Entry) -> str:
    had = entry.positions
    old = f"{entry.old} had last shown {_gtids(had.old)}" if had.old else ""
    new = f"{entry.new} had {_gtids(had.new)} when it was named" if had.new else ""
    said = ", ".join(filter(None, (old, new)))
    return f"GTIDs: {'; '.join(filter(None, (said, had.difference)))}."


def _gtids(text: str) -> str:
    try:
        return short_gtids(text, 60)
    except ValueError:  # the text was too long to be kept as a whole
        return textwrap.shorten(text, 60, placeholder="…")


def _configuration(before: Setup, after: Setup | None) -> str:
    was = f"Before: {_setup(before)}."
    return was if after is None else f"{was} After: {_setup(after)}."


def _setup(setup: Setup) -> str:
    others = [name for name in setup.voters if name != setup.primary]
    votes = f"{_listed(others)} voted beside it" if others else "it served alone"
    acks = f"{setup.acks} of them had to acknowledge" if setup.acks else "nobody had to acknowledge"
    return f"{setup.primary} in term {setup.term}, mode {setup.mode}; {votes}, {acks}"


def _returned(entry: Entry, returned: Returned) -> str:
    old, count = entry.old, returned.transactions
    one = count == 1
    some = "1 transaction" if one else f"{count or 'some'} transactions"
    were, they = ("was", "it is") if one else ("were", "they are")
    parts = []
    if returned.verdict == "clean":
        parts.append("nothing had to be cut from its binlog")
    elif returned.verdict == "cut":
        parts.append(
            f"{some} {were} cut from its binlog (no client was told that {they} committed)"
        )
    elif returned.verdict == "committed":
        parts.append(f"it had committed {some} that nobody else had")
    if returned.rewound:
        parts.append(f"{some} {were} taken back (rewound)")
    if returned.saved:
        parts.append(f"that is saved on its host in {', '.join(returned.saved)}")
    if returned.reason:
        parts.append(returned.reason)
    if returned.cloned:
        parts.append("its data was replaced (cloned)")
    if returned.following is not None:
        parts.append(f"it was back {_after(entry, returned.following)}")
    elif not parts:
        return f"{old} has not come back yet, as far as the history knows."
    else:
        parts.append("it is not back yet")
    return f"What became of {old}: {'; '.join(parts)}."


def _hooks(entry: Entry) -> Iterator[str]:
    for result in entry.hooks:
        text = f": {result.text}" if result.text else ""
        yield f"  {result.phase} at {result.at_ms:.0f} ms: {result.outcome}{text}"
        for ran in result.ran:
            ended = ran.trouble if ran.code is None else f"exit code {ran.code}"
            yield f"    {ran.hook} --command={ran.command}: {ended} after {span(ran.seconds * 1000)}"
            yield from (f"      {line}" for line in ran.output.splitlines())


def _line(moment: Moment) -> str:
    text = moment.text
    if moment.sort is Sort.COMMAND:
        parts = ", ".join(f"{name} {ms:.1f}" for name, ms in moment.steps.items() if ms >= 0.05)
        text += f": {moment.ms:.1f} ms" + (f" ({parts})" if parts else "")
    elif moment.sort is Sort.FAILED and moment.ms:
        text += f" (after {span(moment.ms)})"
    return f"  {moment.at_ms:>+10.1f}  {moment.sort:<8} {moment.member:<4} {text}".rstrip()


def _columns(rows: Iterator[tuple[str, ...]]) -> list[str]:
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  "
        + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)

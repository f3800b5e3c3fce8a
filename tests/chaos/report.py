"""The tables at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

from tests.chaos.book import Book
from tests.chaos.fleet import Fleet
from tests.chaos.ledger import Ledger
from tests.chaos.plan import AT_THE_QUEUE, FAULTS, OVER_HTTP
from tests.chaos.watch import Blow, Hit, Watch

#: What a fault hit comes back within a lease, a sweep and a bit after its end.
AFTERMATH_S = 8.0


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least this share of them does not exceed."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def of_faults(blows: Sequence[Blow], watch: Watch, book: Book) -> Iterator[str]:
    """One row a kind: what it hit, when that began again, and when the service was back."""
    span = f"{'p50':>7} {'p99':>7}"
    heads = "   ".join(f"{head:>15}" for head in ("waits again, s", "began again, s", "alone, s"))
    yield f"{'':<16}       jobs  went began   {heads}   {'back, s':>13}"
    yield f"{'fault':<16}   n   hit    on again   {span}   {span}   {span}   {'p50':>6} {'max':>6}"
    for kind in FAULTS:
        mine = [blow for blow in blows if blow.kind == kind]
        pairs = [(blow, hit) for blow in mine for hit in blow.hits if hit.ended != "before"]
        again = [(blow, hit) for blow, hit in pairs if hit.again_at is not None]
        timed = [(blow, hit) for blow, hit in again if hit.held.priority == "interactive"]
        alone = [(blow, hit) for blow, hit in timed if _alone(blow, hit, blows)]
        free = [hit.waits_at - blow.at for blow, hit in pairs if hit.waits_at and _alone(blow, hit, blows)]
        back = [at - blow.at for blow in mine if (at := _back(blow, watch, book)) is not None]
        yield (
            f"{kind:<16} {len(mine):>3} {len(pairs):>5} {len(pairs) - len(again):>5} {len(again):>5}   "
            f"{_two(free, 7)}   {_two([_took(*pair) for pair in timed], 7)}   "
            f"{_two([_took(*pair) for pair in alone], 7)}   {_two(back, 6, 1.0)}"
        )
    yield "waits again, s: from the fault until a job that it hit was in the queue again, with no other fault"
    yield "of Redis or a worker near; began again, s: to the next start of an interactive one (a batch waits"
    yield "for those), once a slot is free; alone: of these, with no other fault near; back, s: from the"
    yield "fault to the next start of any job (gateway: to the next answer to a question over HTTP)"


def of_jobs(ledger: Ledger, book: Book, fleet: Fleet) -> Iterator[str]:
    """What was asked, and what became of it."""
    accounts = book.accounts.values()
    questions = sum(len(account.questions) for account in accounts)
    asked = sum(len(account.acknowledged) for account in accounts)
    forgotten = sum(account.forgotten for account in accounts)
    callers = len(AT_THE_QUEUE) + len(OVER_HTTP)
    rows = {
        "questions": f"{questions} of {callers} callers, accepted {asked} times",
        "refused, for now": _counts(book.refusals),
        "forgotten": f"{forgotten} by a Redis that crashed, and asked again",
        "jobs": f"{len(accounts)} = {_counts(ledger.outcomes)}",
        "batches": f"{sum(ledger.bundles.values())} = {_counts(ledger.bundles)}",
        "damaged": f"{sum(account.damaged for account in accounts)} answers, asked again",
        "losses of a job": ", ".join(f"{losses}: {n} jobs" for losses, n in sorted(ledger.losses.items())),
        "files": f"{ledger.images}, pictures decoded, each sha256 as recorded and as first seen",
        "computed again": f"{ledger.compared} chains and attributions in peace, every value equal",
        "fenced off": f"{ledger.fenced} runs found that they had lost their job",
        "ended twice": f"{ledger.twice_told}, their first end forgotten by Redis",
        "left by the killed": f"{ledger.left_by_killed} files, gone after the collector",
        "answers besides": f"{ledger.answers_besides} by runs whose job then ended otherwise",
    }
    if fleet.drains:
        spans = [until - since for since, until in fleet.drains]
        rows["drains"] = f"{len(spans)}, p50 {percentile(spans, 0.5):.1f} s, max {max(spans):.1f} s"
        rows["drains"] += f"; grace period {fleet.scale.grace_s:g} s"
    for name, text in rows.items():
        yield f"{name:<18}  {text}"


def _took(blow: Blow, hit: Hit) -> float:
    return (hit.again_at or blow.at) - blow.at


def _alone(blow: Blow, hit: Hit, blows: Sequence[Blow]) -> bool:
    until = hit.again_at or hit.waits_at or blow.at
    return not any(
        other.at < until and other.until + AFTERMATH_S > blow.at
        for other in blows
        if other is not blow and other.target != "gateway"
    )


def _back(blow: Blow, watch: Watch, book: Book) -> float | None:
    if blow.target == "gateway":
        return book.first_answer_after(blow.at, OVER_HTTP)
    if blow.target != "Redis":
        return None
    return min((at for at in watch.starts.values() if at > blow.at + 0.2), default=None)


def _two(values: Sequence[float], width: int, second: float = 0.99) -> str:
    if not values:
        return f"{'-':>{width}} {'-':>{width}}"
    return f"{percentile(values, 0.5):>{width}.1f} {percentile(values, second):>{width}.1f}"


def _counts(counts: dict[str, int]) -> str:
    return " + ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"

"""The ledger: what was asked against what there is, at the end, in Redis and in the store."""

from __future__ import annotations

import hashlib
import io
import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from PIL import Image
from redis import Redis

from proxygrad.png import read_text
from proxygrad.protocol.jobs import ArtifactInfo
from proxygrad.protocol.requests import VisualizationRequest
from proxygrad.protocol.visualizations import ImageInfo
from proxygrad.spec import ModelInfo, Spec
from tests.chaos.book import Account, Book
from tests.chaos.callers import ENDED
from tests.chaos.fleet import Fleet
from tests.chaos.plan import SPARE_S, Bundle, Question
from tests.chaos.watch import Watch, first_picture, record
from tests.support import queue_invariants
from workers.batches.repository import Batches
from workers.broker import keys
from workers.broker.limits import MAX_LOSSES
from workers.jobs.inputs import INPUT
from workers.jobs.kinds.attribution import ATTRIBUTION, CONTRIBUTIONS, HEATMAP, OVERLAY
from workers.jobs.kinds.visualization import image_name
from workers.jobs.repository import Job, Jobs
from workers.storage.collector import GarbageCollector, RetentionPolicy
from workers.storage.paths import artifact_path, result_path
from workers.storage.store import Store

#: The files of an attribution.
FILES = (HEATMAP, OVERLAY, CONTRIBUTIONS)
#: A run that stores its answer while its deadline passes has made it, and tells as soon as Redis is there.
LATE_S = SPARE_S

#: What may be left for good once nothing waits or runs. Other keys of jobs, and of ours, have to expire.
_KEPT = re.compile(
    r"rq:(queues|workers(:proxygrad)?|worker:.+|(finished|failed|canceled):proxygrad)"
    r"|proxygrad:(clock|arrivals|presence|ended|jobs|rate|sweeps|workers|collector|worker:.+|batches.*)"
    r"|proxygrad:flows:(interactive|batch)"
)
_OF_A_JOB = re.compile(r"(?:proxygrad:[a-z]+|rq:(?:job|results)):([0-9a-f]{32})")

#: What may become of a question, beside `worker_lost` where it met that many dead workers.
_OUTCOMES: dict[str, set[str]] = {
    "plain": {"succeeded"},
    "batch": {"succeeded"},
    "patient": {"succeeded"},
    "twin": {"succeeded"},
    "canceled": {"succeeded", "canceled"},
    "hurried": {"succeeded", "failed: deadline_exceeded"},
    "foreign": {"failed: model_unavailable"},
    "outside": {"failed: position_out_of_range"},
    "unit": {"succeeded"},
    "chains": {"succeeded"},
    "upload": {"succeeded"},
    "image": {"succeeded"},
}


@dataclass(frozen=True)
class Evidence:
    """What is known at the end."""

    book: Book
    fleet: Fleet
    watch: Watch
    redis: Redis
    store: Store
    versions: Sequence[ModelInfo]

    def accounts_for(self, job: Job, outcome: str) -> bool:
        """Whether a fault explains that a job failed in this way."""
        ended_at = self.fleet.real(job.finished_at or 0.0)
        if outcome == "failed: worker_lost":
            return job.losses >= MAX_LOSSES
        if outcome == "failed: storage_full":
            return any(since - 1 <= ended_at <= until + SPARE_S for since, until in self.fleet.full)
        if outcome == "failed: model_unavailable":
            own = [info.version for info in self.versions if job.spec.identity(info) == job.id]
            return any(self.watch.unserved(version, ended_at) for version in own)
        return False


@dataclass
class Ledger:
    """``mismatches`` is empty when all is well; the rest is for the table."""

    mismatches: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    losses: Counter[int] = field(default_factory=Counter)
    succeeded: list[Job] = field(default_factory=list)
    images: int = 0
    compared: int = 0
    left_by_killed: int = 0
    answers_besides: int = 0
    bundles: Counter[str] = field(default_factory=Counter)
    fenced: int = 0
    twice_told: int = 0


def audit(evidence: Evidence, bundles: Sequence[Bundle]) -> Ledger:
    """Look at everything; all must have ended."""
    book, fleet, redis, store = evidence.book, evidence.fleet, evidence.redis, evidence.store
    ledger = Ledger(mismatches=[*book.flaws, *fleet.surprises])
    jobs = Jobs(redis, store)
    _note_units(evidence, bundles, jobs)
    for bundle in bundles:
        ledger.mismatches += _of_bundle(evidence, bundle, ledger)
    for account in book.accounts.values():
        job = jobs.fetch(account.job_id)
        if job is None:
            _audit_forgotten(account, ledger, fleet)
            continue
        outcome = f"failed: {job.problem.code}" if job.problem and job.state == "failed" else job.state
        ledger.outcomes[outcome] += 1
        ledger.losses[job.losses] += 1
        ledger.mismatches += _of_outcome(account, job, outcome, evidence)
        if not account.damaged:
            ledger.mismatches += _of_first_end(account, job, jobs, redis, fleet)
        if job.state == "succeeded":
            ledger.images += len(job.artifacts)
            ledger.mismatches += _of_answer(account, job, jobs, store)
            ledger.succeeded.append(job)
    ledger.mismatches += [f"queue: {fault}" for fault in queue_invariants.faults(redis)]
    ledger.mismatches += _of_keys(book, redis)
    _audit_store(book, ledger, redis, store)
    _audit_logs(book, ledger, fleet)
    return ledger


def forgettable(at: float, fleet: Fleet, latest: float | None = None) -> bool:
    """Whether a Redis that crashed may have forgotten what it wrote then, or up to ``latest``."""
    return any(since <= (latest or at) and at <= until for since, until in fleet.cuts)


def _audit_forgotten(account: Account, ledger: Ledger, fleet: Fleet) -> None:
    """A job may be forgotten after its end, where that was within the seconds that Redis lost."""
    at = max(account.acknowledged)
    if account.told in ("failed", "canceled") and any(at <= until for _, until in fleet.cuts):
        ledger.outcomes[f"{account.told}, then forgotten"] += 1
    else:
        ledger.mismatches.append(f"{account.job_id} was asked at {at:.1f}, and nobody knows it")


def _note_units(evidence: Evidence, bundles: Sequence[Bundle], jobs: Jobs) -> None:
    """An account for each job of a bundle, of whichever version it was."""
    for bundle in bundles:
        for unit in bundle.request.units:
            assert isinstance(unit, int)
            spec = bundle.request.spec_of(unit)
            for job_id in (spec.identity(info) for info in evidence.versions):
                if jobs.fetch(job_id) is not None:
                    request = VisualizationRequest.of(spec)
                    question = Question(-1, "bundles", bundle.at_s, "unit", request)
                    evidence.book.acknowledge(question, job_id, time.time())


def _of_bundle(evidence: Evidence, bundle: Bundle, ledger: Ledger) -> Iterator[str]:
    """The last of its batches has ended, its counts add up, and only a fault explains a unit that failed."""
    ids = evidence.book.bundles.get(bundle.number, [])
    batches = Batches(evidence.redis)
    batch = batches.fetch(ids[-1]) if ids else None
    if batch is None:
        yield f"bundle {bundle.number} was asked {len(ids)} times, and there is no batch"
        return
    units = batches.units(batch, batch.units)
    ledger.bundles[batch.state] += 1
    if Counter(unit.state for unit in units) != Counter(batch.counts) or batch.waiting:
        yield f"the counts of batch {batch.id} are {batch.counts}, its units {[each.state for each in units]}"
    if batch.state != ("failed" if batch.counts["failed"] else "succeeded"):
        yield f"batch {batch.id} is {batch.state}: {batch.counts}"
    for unit in units:
        code = unit.problem.code if unit.problem else ""
        version = f"{batch.digest[:16]}.{batch.engine_version}"
        explained = {
            "model_changed": evidence.watch.unserved(version),
            "model_unavailable": evidence.watch.unserved(version),
            "storage_full": bool(evidence.fleet.full),
            "worker_lost": True,  # the job is looked at, too
        }
        if unit.state == "failed" and not explained.get(code, False):
            yield f"unit {unit.number} of batch {batch.id} failed: {unit.problem}"


def _of_outcome(account: Account, job: Job, outcome: str, evidence: Evidence) -> Iterator[str]:
    fleet = evidence.fleet
    what = f"{job.id} ({', '.join(sorted(account.kinds))})"
    allowed = set.intersection(*(_OUTCOMES[kind] for kind in account.kinds))
    if outcome not in allowed and not evidence.accounts_for(job, outcome):
        yield f"{what} ended as {outcome}: {job.problem}"
    promised = account.cancel_state == "canceled" and not forgettable(account.canceled_at or 0, fleet)
    if promised and job.state != "canceled":
        yield f"{what} was said to be canceled, and is {job.state}"
    if job.deadline_at is not None and job.finished_at is not None:
        if outcome == "failed: deadline_exceeded" and job.finished_at < job.deadline_at - 0.05:
            yield f"{what} failed {job.deadline_at - job.finished_at:.2f} s before its deadline"
        late = job.state == "succeeded" and job.finished_at > job.deadline_at + LATE_S
        late = late and not fleet.shifts  # else the two may be on different clocks
        if late and not _away(job.deadline_at, job.finished_at, fleet):
            yield f"{what} succeeded {job.finished_at - job.deadline_at:.2f} s after its deadline"


def _away(since: float, until: float, fleet: Fleet) -> bool:
    """Whether nothing could be told at some time in between, or just before."""
    return any(went < until and back > since - LATE_S for went, back in fleet.outages)


def _of_first_end(account: Account, job: Job, jobs: Jobs, redis: Redis, fleet: Fleet) -> Iterator[str]:
    """Whatever came after the first end has changed nothing; what Redis forgot of it, the store has still."""
    then, now = account.end, record(redis, job.id)
    if then is None or then == now:
        return
    if "finished_at" not in then:  # its caller alone was told, before Redis forgot the job
        if job.state != then["state"]:
            yield f"{job.id} was said to have {then['state']}, and is {job.state}"
        return
    ended_at = fleet.real(float(then["finished_at"]))
    # Asked again, as by a twin or a batch, what has failed is queued again.
    again = then["state"] in ("failed", "canceled") and max(account.acknowledged) > ended_at
    if not again and not forgettable(ended_at, fleet, account.end_seen_at):
        changed = sorted(name for name in now | then if now.get(name) != then.get(name))
        yield f"{job.id} ended as {then['state']}, and {', '.join(changed)} changed afterwards"
    stored = jobs.stored(job.id)
    if then["state"] == "succeeded":
        kept = {} if stored is None else stored.brief().to_fields()
        for name in job.result_fields:
            if kept.get(name) != then[name]:
                yield f"{job.id} succeeded, and its {name} in the store changed afterwards"


def _of_answer(account: Account, job: Job, jobs: Jobs, store: Store) -> Iterator[str]:
    names = (
        [image_name(number) for number in range(job.spec.pictures)] if isinstance(job.spec, Spec) else FILES
    )
    if set(job.artifacts) != set(names):
        yield f"{job.id} succeeded, and its record has {sorted(job.artifacts)}"
    for name, info in job.artifacts.items():
        path = artifact_path(job.id, name)
        data = store.get(path)
        if data is None:
            yield f"{job.id} succeeded, and has no {name}"
            continue
        digest = hashlib.sha256(data).hexdigest()
        if digest != info.sha256:
            yield f"{path}: its sha256 is {digest}, its record says {info.sha256}"
        first = path == first_picture(job.kind, job.id)
        if first and account.image_sha256 not in ("", digest) and not account.damaged:
            yield f"{path} is not the one that was there when it succeeded"
        if name.endswith(".png"):
            yield from _of_picture(job, path, data, info)
    stored = jobs.stored(job.id)
    if stored is None or stored.result != job.result or stored.artifacts != job.artifacts:
        yield f"{job.id}: the record in the store is not the one in Redis"


def _of_picture(job: Job, path: str, png: bytes, info: ArtifactInfo) -> Iterator[str]:
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        if isinstance(info, ImageInfo) and image.size != (info.width_px, info.height_px):
            yield f"{path} is {image.size} pixels, not as its record says"
    if read_text(png)["id"] != job.id:
        yield f"{path} says that it is of {read_text(png)['id']}"


def _of_keys(book: Book, redis: Redis) -> Iterator[str]:
    for key in (name.decode() for name in redis.scan_iter(count=1000)):
        of_job = _OF_A_JOB.fullmatch(key)
        if of_job is None or of_job[1] not in book.accounts:
            expected = _KEPT.fullmatch(key) or (key.startswith("proxygrad:") and redis.ttl(key) > 0)
        else:
            expected = redis.ttl(key) > 0
        if not expected:
            yield f"the key {key} is left, for {redis.ttl(key)} s"


def _audit_store(book: Book, ledger: Ledger, redis: Redis, store: Store) -> None:
    """Killed runs may leave what only the collector removes; after it there is nothing but answers."""
    succeeded = {
        job_id
        for job_id in book.accounts
        if redis.hget(keys.job_key(job_id), "state") == b"succeeded" or store.exists(result_path(job_id))
    }
    wanted = {path for job_id in succeeded for path in _paths(job_id, Jobs(redis, store))}
    before = {each.path for each in store.list()} | {each.path for each in store.unfinished()}
    ledger.left_by_killed = len(before - wanted)
    ledger.answers_besides = len(succeeded) - len(ledger.succeeded)
    GarbageCollector(redis, store, RetentionPolicy(), grace_s=0.0).collect()
    after = {each.path for each in store.list()} | {each.path for each in store.unfinished()}
    ledger.mismatches += [f"{path} is left in the store" for path in sorted(after - wanted)]
    ledger.mismatches += [f"{path} is not in the store" for path in sorted(wanted - after)]


def _paths(job_id: str, jobs: Jobs) -> Iterator[str]:
    """What the store is to have of a job that succeeded."""
    yield result_path(job_id)
    stored = jobs.stored(job_id)
    if stored is not None:
        yield from (artifact_path(job_id, name) for name in stored.artifacts)
        if stored.kind == ATTRIBUTION.name:
            yield artifact_path(job_id, INPUT)


def _audit_logs(book: Book, ledger: Ledger, fleet: Fleet) -> None:
    """Of each job one worker says that it succeeded, unless Redis forgot it; nobody tells of a traceback."""
    told: Counter[str] = Counter()
    for member in fleet.members:
        text = member.log.read_text(errors="replace") if member.log.exists() else ""
        told.update(re.findall(r"job ([0-9a-f]{32}) succeeded in", text))
        ledger.fenced += len(re.findall(r"the lease of run \S+ has ended", text))
        for found in re.findall(r"^(?:\s*Traceback|\S+ (?:ERROR|CRITICAL)) .*", text, re.MULTILINE):
            ledger.mismatches.append(f"{member.name} said: {found[:200]}")
    for job_id, count in told.items():
        ledger.twice_told += count > 1
        account = book.accounts.get(job_id)
        if count > 1 and not fleet.cuts and not (account and account.damaged):
            ledger.mismatches.append(f"{count} runs of {job_id} were told that they had succeeded")
        if account is None:
            ledger.mismatches.append(f"{job_id} was computed, and nobody asked")


def unended(book: Book, redis: Redis) -> list[str]:
    """What has not ended, in words."""
    found = []
    for job_id in book.accounts:
        fields = {name: value[:60] for name, value in record(redis, job_id).items() if name != "spec"}
        if fields and fields["state"] not in ENDED:
            found.append(f"{job_id} has not ended: {json.dumps(fields)}")
    return found

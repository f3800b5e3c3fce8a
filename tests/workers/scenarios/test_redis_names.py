"""Golden names: Redis keys, the fields of hashes and streams, and channels keep their names.

Gateways and workers of other versions, `rq info`, dashboards and scripts read them. The test fails when one
is renamed, added or dropped; where that is intended, change the list and say so in the changelog.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from typing import Any

import pytest
from redis import Redis

from tests.support.job_calls import submit

pytest.importorskip("torch", reason="a slot runs the task, which needs torch")

from proxygrad.errors import LaneError
from proxygrad.protocol.attributions import ResolvedAttributionRequest
from proxygrad.protocol.problems import Problem
from proxygrad.protocol.requests import VisualizationRequest
from proxygrad.spec.attribution import InputImage
from tests.support.artifacts import names
from tests.support.counting_engine import CountingEngine
from tests.support.eventually import until
from tests.support.expanded_batches import ask, asked, drained, end_next, idle
from tests.support.expanded_batches import ended as batch_ended
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import pop, take
from tests.support.worker_in_process import working
from tests.workers.queue.test_janitor_presence import FOR_LONG_S, pass_by
from workers.batches.expansion_commands import ExpansionCommands
from workers.batches.repository import Batches, BatchRecord
from workers.broker.pipeline import run_blocking
from workers.execution import checkpoints
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel
from workers.jobs.inputs import INPUT, put_input
from workers.jobs.kinds.attribution import ATTRIBUTION
from workers.jobs.repository import DEFAULT_LIMITS, Job, Jobs
from workers.jobs.requests import Submission
from workers.queue.janitor import Janitor, Presence
from workers.queue.leases import Leases, Run
from workers.storage.collector import GarbageCollector, RetentionPolicy
from workers.storage.pins import ArtifactPins
from workers.storage.store import Store
from workers.webhooks import Deliveries

pytestmark = pytest.mark.engine

CALLER, OTHER = "ann", "bob"
WORKER, SLOT = "host", "host.0"  # as `take` and `working` name them
RECEIVER = "https://a.example"
WISHES = {"webhook": f"{RECEIVER}/hook", "deadline_s": 60.0}

#: What differs from run to run, and what stands for it in the lists below.
PLACEHOLDERS = (
    (re.escape(f"{RECEIVER}/hook"), "{url}"),
    (re.escape(RECEIVER), "{receiver}"),
    (r"\b[0-9a-f]{40}\b", "{sha1}"),
    (r"\b[0-9a-f]{32}\b", "{id}"),
    (rf"\b{WORKER}\.\d+\b", "{slot}"),
    (rf"\b{WORKER}\b", "{worker}"),
    (rf"\b({CALLER}|{OTHER})\b", "{caller}"),
    (rf"\b{MODEL.name}\b", "{model}"),
    (r"^\d+$", "{unit}"),
)

#: Key and type; below it the fields of a hash, or of the entries of a stream.
KEYS = """
proxygrad:arrivals string
proxygrad:requested:{caller} zset
proxygrad:requesters:{id} hash
    {caller}
proxygrad:presence hash
    {worker}
proxygrad:batch:{id} hash
    caller, cancel_pending, cancel_requested, canceled, created_at, cursor, deadline_at, digest,
    dropped, engine_version, failed, finished_at, held_until, kind, layer, limits, model, pinned_at,
    priority, problem, queued, running, state, succeeded, template, total, units, window
proxygrad:batch:{id}:again list
proxygrad:batch:{id}:claim string
proxygrad:batch:{id}:now list
proxygrad:batch:{id}:open hash
    {id}
proxygrad:batch:{id}:units hash
    {unit}
proxygrad:batches zset
proxygrad:batches-of:{id} set
proxygrad:batches:due:{model} zset
proxygrad:batches:of:{caller} zset
proxygrad:batches:running set
proxygrad:batches:running:looked string
proxygrad:batches:running:of:{caller} set
proxygrad:callers set
proxygrad:clock hash
    batch, interactive
proxygrad:deletion-lock:{id} string
proxygrad:collector string
proxygrad:deadlines zset
proxygrad:deliveries zset
proxygrad:deliveries:due:{receiver} zset
proxygrad:deliveries:of:{caller} zset
proxygrad:deliveries:receivers zset
proxygrad:delivery:{id} hash
    activation, attempts, caller, canceled, claim, claimed_at, created_at, ended, error, failed, kind,
    next_at, problem, receiver, state, status, subject, succeeded, total, tried, tried_at, url
proxygrad:ended hash
    attribution/succeeded, canceled, failed, lost, succeeded
proxygrad:events:{id} stream
    data, event
proxygrad:flows:batch hash
    f:{caller}/{id}, n:{caller}/{id}, s:{caller}/{id}
proxygrad:flows:batch:{model} hash
    f:{caller}/{id}, n:{caller}/{id}
proxygrad:flows:interactive hash
    f:{caller}, n:{caller}, s:{caller}
proxygrad:flows:interactive:attribution/{model} hash
    f:{caller}, n:{caller}
proxygrad:flows:interactive:{model} hash
    f:{caller}, n:{caller}
proxygrad:forgotten set
proxygrad:fronts:batch hash
    {model}
proxygrad:fronts:interactive hash
    {model}
proxygrad:webhook-sent:{sha1} string
proxygrad:webhooks:{id} hash
    {caller} {url}
proxygrad:job:{id} hash
    activation, arrival, best, caller, cancel_requested, checkpoint, cost, created_at, deadline_at,
    exact, execution, expected_at, files, finished_at, flow, images, kind, losses, model, priority, problem,
    result, spec, started_at, state, step, steps, turn, worker
proxygrad:jobs zset
proxygrad:missed:{worker} set
proxygrad:offsets:batch hash
    {model}
proxygrad:offsets:interactive hash
    attribution/{model}, {model}
proxygrad:pace hash
    model:attribution/{model}, model:{model}, ran_s
proxygrad:popped hash
    {id}
proxygrad:rate hash
    at, per_s
proxygrad:ready:batch:{model} zset
proxygrad:ready:interactive:attribution/{model} zset
proxygrad:ready:interactive:{model} zset
proxygrad:running set
proxygrad:sweeps hash
    swept
proxygrad:waiting:{caller} set
proxygrad:watched:{id} string
proxygrad:worker:{worker}:models string
proxygrad:worker:{worker}:readiness string
proxygrad:workers zset
rq:canceled:proxygrad zset
rq:execution:{id}:{id} hash
    created_at, id, last_heartbeat, worker_name
rq:executions:{id} zset
rq:failed:proxygrad zset
rq:finished:proxygrad zset
rq:job:{id} hash
    created_at, data, description, ended_at, enqueued_at, failure_callback_name, failure_ttl, group_id,
    last_heartbeat, origin, result_ttl, retries_left, started_at, status, stopped_callback_name,
    success_callback_name, timeout, worker_name
rq:queue:proxygrad list
rq:queue:proxygrad:intermediate list
rq:queues set
rq:results:{id} stream
    exc_string, execution_id, return_value, type, worker_name
rq:wip:proxygrad zset
rq:worker:{slot} hash
    birth, current_job, death, failed_job_count, hostname, ip_address, last_heartbeat, pid,
    python_version, queues, state, successful_job_count, total_working_time, version
rq:workers set
rq:workers:proxygrad set
"""

#: Channel, and the forms of its messages; of events the kind and the keys of the JSON.
MESSAGES = """
proxygrad:batches:wake
    {model}
proxygrad:cancel
    {id}
proxygrad:events:{id}
    preview: data media_type step
    progress: activation step steps
    state: problem state
    state: state
    withdrawn: {caller}
proxygrad:wake
    attribution/{model}
    {model}
"""


class Recorder:
    """Collects the names that stand in Redis whenever it looks, and those of what is published meanwhile."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._published = self._redis.pubsub()
        self._published.psubscribe("*")
        self._names: dict[str, set[str]] = defaultdict(set)

    def look(self) -> None:
        for key in self._redis.scan_iter(count=1000):
            kind = self._redis.type(key).decode()
            self._names[f"{general(key)} {kind}"].update(map(general, self._fields(key, kind)))

    def _fields(self, key: bytes, kind: str) -> list[bytes]:
        if kind == "hash":
            return list(self._redis.hkeys(key))
        if kind == "stream":
            return [field for _, entry in self._redis.xrange(key) for field in entry]
        return []

    @property
    def keys(self) -> dict[str, list[str]]:
        return {name: sorted(fields) for name, fields in self._names.items()}

    def messages(self) -> dict[str, list[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        while (message := self._published.get_message(timeout=0.01)) is not None:
            if message["type"] == "pmessage":
                found[general(message["channel"])].add(_form(message["data"].decode()))
        return {channel: sorted(forms) for channel, forms in found.items()}


def general(name: bytes) -> str:
    """The name without what differs from run to run."""
    text = name.decode()
    for pattern, placeholder in PLACEHOLDERS:
        text = re.sub(pattern, placeholder, text)
    return text


def _form(message: str) -> str:
    """Of an event (id, kind, data) the kind and the keys of the data; of anything else all."""
    words = message.split(" ", 2)
    if len(words) < 3:
        return general(message.encode())
    _, kind, data = words
    about = sorted(json.loads(data)) if data.startswith("{") else [general(data.encode())]
    return f"{kind}: {' '.join(about)}"


def listed(text: str) -> dict[str, list[str]]:
    """A list of this file: by unindented line the names in the indented lines below it."""
    found: dict[str, list[str]] = {}
    heading = ""
    for line in text.strip().splitlines():
        if line.startswith(" "):
            found[heading] += line.strip(" ,").split(", ")
        else:
            heading, found[line] = line, []
    return found


def test_keys_fields_and_channels(redis: Redis, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(redis)
    catalog.publish(redis, WORKER, [ServedModel(name=MODEL.name, info=MODEL)], ttl_s=60)
    job = submit_visualization(redis, store, recorder)
    attribute(redis, store, recorder)
    batch = expand_batch(redis, store, recorder)
    lose(redis, job, recorder)
    stop_and_fail(redis, store, job, recorder)
    cancel_batch(redis, store, recorder)
    drop_batch(redis, recorder)
    monkeypatch.setattr(checkpoints, "CHECKPOINT_S", 0.0)
    compute(redis, store, batch, recorder)
    deliver(redis, recorder)
    collect(redis, store, job, recorder)
    assert recorder.keys == listed(KEYS)
    assert recorder.messages() == listed(MESSAGES)


def submit_visualization(redis: Redis, store: Store, recorder: Recorder) -> Job:
    request = VisualizationRequest.of(question(1)).model_copy(update=WISHES)
    job, _ = submit(Jobs(redis, store), request, MODEL, caller=CALLER)
    submit(Jobs(redis, store), request, MODEL, caller=OTHER)
    recorder.look()
    return job


def attribute(redis: Redis, store: Store, recorder: Recorder) -> None:
    """An attribution waits, succeeds, and is deleted; its picture comes and goes with it."""
    jobs, picture = Jobs(redis, store), b"pixels"
    digest = hashlib.sha256(picture).hexdigest()
    image = InputImage(sha256=digest, channels=1, height_px=8, width_px=8)
    request = ResolvedAttributionRequest(model=MODEL.name, layer=question(1).layer, unit=0, image=image)
    submission = Submission.of(ATTRIBUTION, request, MODEL, CALLER, None)
    job = run_blocking(jobs.submit(submission, DEFAULT_LIMITS), redis)[0]
    put_input(store, ArtifactPins(redis), job.id, picture, digest)
    assert names(store) == {f"{job.id}/{INPUT}"}
    recorder.look()
    assert pop(redis, ATTRIBUTION.capability(MODEL.name)) == job.id
    run = Run(job.id, "a" * 32)
    assert take(Leases(redis), run) == "taken"
    fields: dict[str, str | int | float] = {"files": "{}", "result": "{}", "activation": 0.5}
    assert Leases(redis).close(run, "succeeded", fields=fields, slot=SLOT, ran_s=0.1) == "closed"
    recorder.look()
    jobs.forget(job.id)
    assert names(store) == set()


def expand_batch(redis: Redis, store: Store, recorder: Recorder) -> BatchRecord:
    """A worker dies over it, another goes on."""
    batch = ask(Batches(redis), asked([2, 3, 4], **WISHES), CALLER)
    scripts = ExpansionCommands(redis)
    recorder.look()
    assert scripts.claim(batch.id, "token", 5)
    assert scripts.next(batch.id, "token", 5, 2) == [2, 3]
    recorder.look()
    scripts.release(batch.id, "token", 0)
    scripts.look(60.0)
    drained(idle(redis, store))
    recorder.look()
    return batch


def lose(redis: Redis, job: Job, recorder: Recorder) -> None:
    """The worker that runs the job vanishes."""
    assert pop(redis) == job.id
    Janitor(redis).sweep()
    recorder.look()
    assert take(Leases(redis), Run(job.id, "e" * 32)) == "taken"
    Presence(redis).enlist(WORKER)
    Janitor(redis).sweep()
    pass_by(redis, FOR_LONG_S)
    assert Janitor(redis).sweep() == {job.id: "queued"}
    recorder.look()


def stop_and_fail(redis: Redis, store: Store, job: Job, recorder: Recorder) -> None:
    """The job runs, is watched, canceled and forgotten; asked for again, it fails. A unit ends."""
    jobs, leases, run = Jobs(redis, store), Leases(redis), Run(pop(redis), "e" * 32)
    assert take(leases, run) == "taken"
    jobs.watch([job.id])
    leases.write(run, {"step": 1, "activation": 0.5}, remaining_s=1.0)
    leases.show(run, 1, b"preview")
    jobs.cancel(job.id, caller=OTHER)
    jobs.forget(job.id)
    recorder.look()
    assert leases.close(run, "canceled", slot=SLOT) == "closed"
    recorder.look()
    jobs.retry(job.id, caller=CALLER)
    run = Run(pop(redis), "f" * 32)
    assert take(leases, run) == "taken"
    problem = {"problem": Problem(code="lane_failed", detail="nan").model_dump_json()}
    closing = leases.close(run, "failed", fields=problem, slot=SLOT, exc_string="nan")
    assert closing == "closed"
    end_next(redis)
    recorder.look()


def cancel_batch(redis: Redis, store: Store, recorder: Recorder) -> None:
    """A batch is canceled, by a gateway that dies halfway; asked for again, and canceled for good."""
    batches, request = Batches(redis), asked([11, 12])
    batch = ask(batches, request, CALLER)
    drained(idle(redis, store))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "withdraw", lambda batch_id: None)
        batches.cancel(batch.id)
    recorder.look()
    batches.withdraw(batch.id)
    ask(batches, request, CALLER)
    recorder.look()
    batches.cancel(batch.id)
    recorder.look()


def drop_batch(redis: Redis, recorder: Recorder) -> None:
    """A batch rests, and ends because its model has changed."""
    batch, scripts = ask(Batches(redis), asked([13]), CALLER), ExpansionCommands(redis)
    assert scripts.pins_due(batch.id, 0.0)
    assert scripts.claim(batch.id, "token", 5)
    scripts.release(batch.id, "token", 1.0)
    recorder.look()
    scripts.drop(batch.id, "model_changed", "other weights")
    recorder.look()


def compute(redis: Redis, store: Store, batch: BatchRecord, recorder: Recorder) -> None:
    """A worker computes what waits; one unit fails."""
    engine, jobs = CountingEngine(step_s=0.02, errors={4: LaneError("nan")}), Jobs(redis, store)
    job, _ = submit(jobs, question(20, steps=1000), MODEL, caller=CALLER)
    with working(redis, store, engine):
        until(lambda: has_checkpoint(jobs, job))
        recorder.look()
        engine.tickets[-1].finish()
        batch_ended(Batches(redis), batch)
    recorder.look()


def has_checkpoint(jobs: Jobs, job: Job) -> bool:
    now = jobs.fetch(job.id)
    return now is not None and now.checkpoint is not None


def deliver(redis: Redis, recorder: Recorder) -> None:
    first, second, *_ = Deliveries(redis).claim(10, 10, 60, {})
    recorder.look()
    Deliveries(redis).settle(first, "delivered", 204, None)
    Deliveries(redis).settle(second, "pending", None, "no connection", 60)
    recorder.look()


def collect(redis: Redis, store: Store, job: Job, recorder: Recorder) -> None:
    ArtifactPins(redis).lock_for_deletion(job.id)
    GarbageCollector(redis, store, RetentionPolicy()).round()
    Janitor(redis).tidy()
    recorder.look()

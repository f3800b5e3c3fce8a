"""An entry of the queue is what RQ itself would write."""

from __future__ import annotations

from redis import Redis
from rq.job import Job as RQJob
from rq.job import JobStatus

from workers.broker import limits, rq_names
from workers.queue import rq_entries

TIMES = {"created_at", "enqueued_at"}


def test_an_entry_is_as_rq_makes_it(redis: Redis) -> None:
    for job_id in ("5f0c6a4b7d8e9f00112233445566778a", "f" * 32):
        made = RQJob.create(
            rq_entries.TASK,
            args=(job_id,),
            id=job_id,
            connection=redis,
            origin=rq_names.QUEUE_NAME,
            status=JobStatus.QUEUED,
            timeout=-1,
            result_ttl=limits.FINISHED_TTL_S,
            failure_ttl=limits.FINISHED_TTL_S,
            serializer=rq_entries.SERIALIZER,
        )
        made.retries_left = rq_entries.FOREIGN_RETRIES
        expected = {name: value for name, value in made.to_dict().items() if value is not None}
        fields = rq_entries.entry_fields(job_id)
        assert {name: fields[name] for name in fields.keys() - TIMES} == {
            name: expected[name] for name in expected.keys() - TIMES
        }
        redis.hset(rq_names.entry_key(job_id), mapping=fields)  # type: ignore[arg-type]
        read = RQJob.fetch(job_id, connection=redis, serializer=rq_entries.SERIALIZER)
        assert (read.func_name, [*read.args], read.description) == (
            rq_entries.TASK,
            [job_id],
            made.description,
        )
        assert read.created_at == read.enqueued_at
        assert abs((read.created_at - made.created_at).total_seconds()) < 60

"""Limits and other constants that Python and Lua scripts share. Lua reads them as ``LIMIT.MAX_LOSSES``.

A number of one side alone stands there, beside its use.
"""

from __future__ import annotations

from proxygrad.protocol import requests

#: The caller of every request where API keys are not in force.
ANONYMOUS = requests.ANONYMOUS

#: The kind of a job whose record names none: one from before there were kinds.
DEFAULT_KIND = "visualization"

#: Seconds that Redis keeps a job after its end; the store answers for a succeeded one from then on. A week
#: covers "what did I run last week"; a finished job takes some 8 to 11 KB of Redis, RQ's part included.
FINISHED_TTL_S = 7 * 24 * 3600
#: A job that was running on this many workers when they died is not given to another one.
MAX_LOSSES = 3
#: Seconds of a claim: longer than a worker takes for the units of a batch that it has in hand, and no more:
#: of a worker that died, another goes on after it. Two at once are slower, and do no harm.
CLAIM_S = 5
#: Seconds that a batch rests after the queue was full or the store did not answer, unless a unit of it ends.
REST_S = 1
#: Seconds that a watch of previews lasts; a watcher says so again before they are over.
WATCHED_S = 10
#: Seconds that RQ's record of a slot lasts at most: 30 s after a heartbeat, 60 s after its end.
SLOT_TTL_S = 90
#: What a worker publishes is believed no longer than this many seconds.
MAX_LIVE_S = 60
#: A time without sweeps of a janitor that counts as a gap: half a lease. What workers renew may have expired.
GAP_S = 3
#: How long they have after it to renew it: two heartbeats of 2 s, or one word of what they serve, each 3 s.
PATIENCE_S = 4
#: Jobs that are listed to the caller that requested them, the newest.
MAX_LISTED_JOBS = 10_000
#: Batches that are listed to one caller, and to those who see all, the newest.
MAX_LISTED_BATCHES = 10_000
#: Units of one caller's batches that are kept, those of the newest batches; a unit takes some 100 bytes of
#: Redis, and so all some 10 MB. An older batch that has ended goes before its week is over.
MAX_KEPT_UNITS = 100_000
#: What a batch takes beside its units, in units.
UNITS_OF_A_BATCH = 20

#: Events that the stream of a job keeps, give or take a hundred: some 25 KB. Progress comes four times a
#: second.
EVENT_STREAM_LENGTH = 256
#: Seconds that the stream outlives its job's end: time to come back after a broken connection.
EVENT_STREAM_TTL_S = 3600

#: Webhook URLs that one caller may have for one job or batch.
MAX_WEBHOOKS = 16
#: Deliveries of one caller that are kept, the newest; an older one goes, delivered or not.
MAX_DELIVERIES = 10_000
#: Requested again within so many seconds, a finished job makes no second delivery to the same URL: the
#: response to the first request was lost.
WEBHOOK_REPEAT_S = 60

#: Seconds that a stored result is pinned: time to fetch an image whose URL one has just been given.
PIN_S = 3600
#: Seconds after which a deletion lock expires if its holder dies. A run of the same job waits that long at
#: most.
DELETION_LOCK_S = 60

"""Golden names: the Redis keys that only the gateway writes. Those of jobs: `tests/workers/test_redis_names`.

The test fails when one is renamed; where that is intended, change it here and say so in the changelog.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from redis import Redis

from service.auth.keys import Keys
from tests.service.conftest import Http
from tests.service.middleware.test_authentication import QUESTION, bearer

#: JSON keys of an API key's record.
RECORD = "created_at digest expires_at id in_flight name rate_per_min revoked_at scopes"


def test_keys_of_the_gateway(served: Http, redis: Redis) -> None:
    key, token = Keys(redis).create("test", ("read", "submit"), rate_per_min=1)
    client: Any = redis
    before = set(client.keys())
    answer = served.ask(json=QUESTION, headers=bearer(token) | {"Idempotency-Key": "one"})
    assert answer.status_code == 202
    added = {name.decode() for name in set(client.keys()) - before}
    digest = hashlib.sha256(b"one").hexdigest()
    assert {name for name in added if key.id in name} == {
        f"proxygrad:requested:{key.id}",
        f"proxygrad:idempotency:{key.id}:{digest}",
        f"proxygrad:requests:{key.id}",
        f"proxygrad:waiting:{key.id}",
    }
    assert sorted(json.loads(client.hget("proxygrad:keys", key.id))) == RECORD.split()

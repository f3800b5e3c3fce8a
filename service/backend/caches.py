"""Caches of parsed requests and of responses, for requests that come again and again as the same bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

from proxygrad.spec import ModelInfo
from service.backend.resources.base import JobResource, RequestBody
from service.settings import ServiceSettings
from service.web.json_body import parsed
from service.web.links import link
from workers.cache import LRUCache
from workers.jobs.repository import Job, Submission

#: Entries of each cache. A parsed request takes a few KB, a response 4 to 60 KB, or megabytes where it has
#: the curves of many images. As many responses as `workers.jobs.queries` caches jobs.
MAX_ENTRIES = 256
#: All cached responses.
MAX_RESPONSES_BYTES = 16_000_000
#: Longer bodies are not cached.
MAX_BODY_BYTES = 2048


class RequestCache:
    """Parsed request bodies, and the submissions made from them. For one event loop."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._parsed: LRUCache[tuple[str, bytes], RequestBody] = LRUCache(MAX_ENTRIES)
        self._submissions: LRUCache[tuple[int, str], tuple[RequestBody, ModelInfo, Submission]] = LRUCache(
            MAX_ENTRIES
        )

    def parse(self, resource: JobResource, body: bytes) -> RequestBody:
        """The request in ``body``. Raises `ProblemError` with 400 or 422."""
        key = resource.kind.name, body
        request = self._parsed.get(key)
        if request is None:
            request = cast(RequestBody, parsed(body, resource.request, resource.maxima(self._settings)))
            if len(body) <= MAX_BODY_BYTES:
                self._parsed.put(key, request)
        return request

    def submission(
        self, resource: JobResource, request: RequestBody, model: ModelInfo, caller: str
    ) -> Submission:
        """The submission of ``request`` for ``model``. Raises what `RequestedSpec.resolve` raises."""
        key = id(request), caller  # the entry holds the request, so no other one has its id meanwhile
        entry = self._submissions.get(key)
        if entry is None or entry[0] is not request or entry[1] is not model:
            entry = request, model, Submission.of(resource.kind, request, model, caller, None)
            self._submissions.put(key, entry)
        return entry[2]


class ResponseCache:
    """The JSON documents of jobs that succeeded, which are the same for all callers. For one event loop."""

    def __init__(self) -> None:
        self._documents: LRUCache[tuple[str, str], tuple[Job, bytes]] = LRUCache(
            MAX_ENTRIES, lambda entry: len(entry[1]), max_bytes=MAX_RESPONSES_BYTES
        )

    async def document(
        self, resource: JobResource, job: Job, whole: Callable[[Job], Awaitable[Job]]
    ) -> bytes:
        """The document of ``job``, which ``whole`` completes.

        Made once for one object: a job that was read anew because it changed gets a new document.
        """
        key = job.id, link("")  # whose links have the prefix of the request
        entry = self._documents.get(key)
        if entry is None or entry[0] is not job:
            complete = job if job.is_whole else await whole(job)
            document = resource.document(complete, None, None, job.created_at)
            entry = job, document.model_dump_json().encode()
            if complete.is_whole:
                self._documents.put(key, entry)
        return entry[1]

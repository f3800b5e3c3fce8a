"""The queue, the process around the GPU, and the artifact store.

Imports `proxygrad`, never `service`. `process`, `execution` and `models` need torch; the gateway uses the
rest. The order of the layers, top first, is `process`, `execution`, `models` and `batches`, `jobs` and
`fleet`, `queue` and `storage`, `broker`. Read `process.main` for the worker, `jobs.repository` for the queue.
"""

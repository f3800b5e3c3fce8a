"""The service's interface as data: what client, gateway and workers say to each other.

Requests, documents, states, problem codes, limits of fields, paths. Needs pydantic alone. May import
`proxygrad.spec` and `proxygrad.errors`. Read `requests`, then `visualizations`.
"""

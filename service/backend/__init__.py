"""The gateway's access to queue, catalog and store: coalesced Redis calls, the event hub, caches, admission.

May import `auth`, `images`, `webhooks`, `web`, and the torch-free half of `workers`. Read
`backend`, then `session`.
"""

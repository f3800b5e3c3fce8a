"""What a gateway process has of the queue: coalesced Redis calls, the event hub, caches, admission.

May import `auth`, `images`, `webhooks`, `web`, `schemas`, and the torch-free half of `workers`. Read
`gateway` first.
"""

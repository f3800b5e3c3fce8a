"""`/v1/attributions`: which pixels of an image made a unit respond. One router for jobs, one for files.

May import what `service.api` may, and `service.api` itself. Read `lifecycle` first.
"""

from service.api.attributions import files, lifecycle

ROUTES = (lifecycle, files)

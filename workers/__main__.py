"""`python -m workers`."""

from __future__ import annotations

import os
import sys

from proxygrad.extras import lacks

if __name__ == "__main__":
    try:
        from workers.process.main import main

        sys.exit(main(sys.argv[1:], os.environ))
    except ModuleNotFoundError as error:
        sys.exit(f"error: {lacks(error, 'worker')}")

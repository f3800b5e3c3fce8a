"""``python -m service``."""

from __future__ import annotations

import sys

from proxygrad.extras import lacks

if __name__ == "__main__":
    try:
        from service.server.run import main
    except ModuleNotFoundError as error:
        sys.exit(f"error: {lacks(error, 'gateway')}")
    sys.exit(main(sys.argv[1:]))

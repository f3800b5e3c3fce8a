"""``python -m service``."""

from __future__ import annotations

import sys

from service.server.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`make fuzz`: a run with a seed; exit status 1 on any fault."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from tests.fuzz.plan import LONG, SHORT
from tests.fuzz.run import fuzz


def main() -> int:
    """Run it and print its table."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="the size that runs among the tests")
    parser.add_argument("--examples", type=int, help="requests for each operation, but for those of chains")
    arguments = parser.parse_args()
    scale = SHORT if arguments.short else LONG
    scale = replace(scale, examples=arguments.examples or scale.examples)
    book = fuzz(arguments.seed, scale, lambda line: print(line, flush=True))
    return 1 if book.faults else 0


if __name__ == "__main__":
    sys.exit(main())

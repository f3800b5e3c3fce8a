"""`make chaos`: a run with a seed; exit status 1 on any mismatch."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from tests.chaos.plan import LONG, SHORT
from tests.chaos.run import chaos


def main() -> int:
    """Run it and print its tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="the size that runs among the tests")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--faults", type=int)
    arguments = parser.parse_args()
    scale = SHORT if arguments.short else LONG
    scale = replace(scale, jobs=arguments.jobs or scale.jobs, faults=arguments.faults or scale.faults)
    ledger = chaos(arguments.seed, scale, lambda line: print(line, flush=True))
    return 1 if ledger.mismatches else 0


if __name__ == "__main__":
    sys.exit(main())

"""The claims of the papers, measured again: writes docs/reproduction.md.

    make reproduce                               # all stages whose code has changed since they ran last
    make reproduce ARGS="--stage toy_functions"  # one section of the page
    make reproduce ARGS="--quick --check"        # a part: are the verdicts still those of the page?

A run that is interrupted goes on with the stage that it was at.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.reproduction import page
from benchmarks.reproduction.cache import ROOT, CachedReport
from benchmarks.reproduction.runner import Runner
from benchmarks.reproduction.stage import load_stage, stage_names

CACHE = ROOT / "build" / "reproduction"
PAGE = ROOT / "docs" / "reproduction.md"


def shared_folder() -> Path | None:
    """The folder with weights and data of others, beside the checkout or where PROXYGRAD_SHARED says."""
    folder = Path(os.environ.get("PROXYGRAD_SHARED") or ROOT.parent / "shared")
    return folder.resolve() if folder.is_dir() else None


def main() -> int:
    """Run stages, then write the page, or compare with it."""
    arguments = _parser().parse_args()
    names = arguments.stage or stage_names()
    folder = CACHE / ("quick" if arguments.quick else "whole")
    runner = Runner(folder, shared_folder(), arguments.quick, arguments.fresh, arguments.jobs)
    try:
        reports, reasons = runner.run(names)
    except KeyboardInterrupt:
        print("interrupted; the next run goes on without the stages that have ended", file=sys.stderr)
        return 130
    for name in names:
        print(f"{name}: {_shown(reports[name]) if name in reports else reasons[name]}", flush=True)
    failed = [name for name, reason in reasons.items() if reason.startswith("failed")]
    if arguments.check:
        differing = page.differences(PAGE, [claim for report in reports.values() for claim in report.claims])
        print("\n".join(differing), file=sys.stderr)
        return 1 if differing or failed else 0
    target = CACHE / "quick" / "reproduction.md" if arguments.quick else PAGE
    page.write(target, [(load_stage(name), report) for name, report in reports.items()], folder)
    print(f"wrote {target.relative_to(ROOT)}")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reproduction",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="a subset of each stage; does not touch the page"
    )
    parser.add_argument(
        "--stage", nargs="+", choices=stage_names(), metavar="NAME", help=", ".join(stage_names())
    )
    parser.add_argument("--fresh", action="store_true", help="run stages although their code is the same")
    parser.add_argument("--check", action="store_true", help="compare verdicts with the page; write nothing")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="stages at once")
    return parser


def _shown(report: CachedReport) -> str:
    claims = [f"\n  {claim.verdict}: {claim.statement} {claim.measured}" for claim in report.claims]
    return f"{report.minutes:.1f} minutes of one core on {report.date}" + "".join(claims)


if __name__ == "__main__":
    sys.exit(main())

"""docs/storage.md names every file that the store has of a job, and how long a picture is waited for."""

from __future__ import annotations

import re
from pathlib import Path

from workers.jobs.inputs import INPUT, PATIENCE_S, REFERENCES
from workers.jobs.kinds.attribution import CONTRIBUTIONS, HEATMAP, OVERLAY
from workers.jobs.kinds.visualization import image_name
from workers.storage.paths import checkpoint_path, result_path

PAGE = (Path(__file__).parents[3] / "docs/storage.md").read_text()


def test_every_file_is_there_and_no_other() -> None:
    block = PAGE.split("```")[1]
    result, checkpoint = (
        path.partition("/")[2] for path in (result_path("id"), checkpoint_path("id", "run"))
    )
    files = {INPUT, REFERENCES, HEATMAP, OVERLAY, CONTRIBUTIONS, image_name(0), image_name(1), result}
    assert set(re.findall(r"\b\w+\.(?:png|npy|json)\b", block)) == files
    assert checkpoint.partition("-")[0] in block


def test_how_long_a_run_waits_for_its_picture() -> None:
    assert f"A run waits {PATIENCE_S:g} s for its pictures" in PAGE

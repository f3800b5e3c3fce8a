"""Batches through both kinds of client: without a worker, and on a whole service."""

from __future__ import annotations

import argparse
import io
import re
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from PIL import Image

from proxygrad.cli import batch as command
from proxygrad.cli import submit
from proxygrad.client import Canceled, Client, Invalid, NotFound, SaveError, StillRunning
from proxygrad.protocol.batches import Batch
from tests.proxygrad.client.conftest import Connect

LAYER: dict[str, Any] = {"model": "digits", "layer": "layer3"}


def test_units_are_asked_for_as_they_are_said(client: Any) -> None:
    for units in ("all", range(4, 20, 4), [9, 3, 5], range(3, 0, -1), (1, 2)):
        batch = client.batch(**LAYER, units=units, steps=16)
        numbers = list(range(64)) if units == "all" else list(units)
        assert (batch.state, batch.ended, batch.template.steps) == ("running", False, 16)
        assert (batch.snapshot.units.total, batch.counts.waiting) == (len(numbers), len(numbers))
        assert [one.unit for one in batch.visualizations()] == numbers


def test_a_batch_is_found_again_and_can_be_stopped(client: Any) -> None:
    batch = client.batch(**LAYER, units=range(3))
    assert client.get_batch(batch.id).counts == batch.counts
    other = client.batch(**LAYER, units=range(2))
    assert [one.id for one in client.batches()] == [other.id, batch.id]
    assert [one.id for one in client.batches(model="digits", state="running")] == [other.id, batch.id]
    assert list(client.batches(state=["failed", "canceled"])) == []
    for progress in (True, False):
        with pytest.raises(StillRunning, match=r"still running after 0\.1 s"):
            batch.wait(progress, timeout_s=0.1)
    batch.cancel()
    with pytest.raises(Canceled, match="0 of 3 units succeeded"):
        batch.wait()
    assert batch.wait(check=False).counts.canceled == 3
    assert batch.cancel().state == "canceled"
    batch.delete()
    with pytest.raises(NotFound):
        batch.refresh()


def test_a_wait_hears_of_the_end(client: Any, url: str) -> None:
    batch = client.batch(**LAYER, units=range(3))
    with Client(url, environ={}) as other:
        later = Timer(0.2, other.get_batch(batch.id).cancel)
        later.start()
        seen: list[Batch] = []
        assert batch.wait(seen.append, check=False).state == "canceled"
        later.join()
    assert (seen[0].state, seen[-1].state) == ("running", "canceled")


def test_what_units_there_are_not_is_said(client: Any) -> None:
    for units in ([64], [], "some", range(0), [1, 1]):
        with pytest.raises(Invalid):
            client.batch(**LAYER, units=units)


def test_a_contact_sheet_has_no_array(client: Any, tmp_path: Path) -> None:
    batch = client.batch(**LAYER, units=range(3))
    with pytest.raises(SaveError, match=r"\.png or a \.webp"):
        batch.save(tmp_path / "sheet.npy")


def test_every_page_of_a_contact_sheet_is_saved(client: Any, tmp_path: Path) -> None:
    batch = client.batch(**LAYER)
    folder = tmp_path / "sheets"
    saved = batch.save(folder / "sheet.png", columns=1, width=256)  # 29 units a page
    assert [path.name for path in saved] == ["sheet.png", "sheet-1.png", "sheet-2.png"]
    assert sorted(folder.iterdir()) == sorted(saved)
    pages = [path.read_bytes() for path in saved]
    assert pages == [batch.atlas(columns=1, width=256, page=page) for page in range(3)]
    assert batch.save(tmp_path / "last.png", columns=1, width=256, page=2) == [tmp_path / "last.png"]
    assert (tmp_path / "last.png").read_bytes() == pages[2]


@pytest.mark.engine
def test_a_whole_service_answers_all_units(served_url: str, connect: Connect, tmp_path: Path) -> None:
    client = connect(served_url)
    batch = client.batch(**LAYER, units=range(6), steps=8).wait(progress=True, timeout_s=90)
    assert (batch.state, batch.counts.succeeded) == ("succeeded", 6)
    found = [*batch.visualizations(state="succeeded")]
    assert [one.unit for one in found] == list(range(6))
    first = client.get(found[0].id)
    assert first.result.achieved_activation == found[0].achieved_activation
    narrow = batch.atlas(columns=3, width=64)
    (wide,) = batch.save(tmp_path / "sheet.webp", columns=6, width=64)
    with Image.open(io.BytesIO(narrow)) as one, Image.open(wide) as other:
        assert (other.format, other.width > one.width) == ("WEBP", True)


@pytest.mark.engine
def test_a_busy_service_answers_with_the_same_bytes(served_url: str, connect: Connect) -> None:
    """One lane alone, then beside a baseline and among 16 strangers, then with a second image."""
    client, mine = connect(served_url), {**LAYER, "unit": 5, "steps": 24, "seed": 11}
    alone = client.visualize(**mine).wait(timeout_s=90)
    strangers = client.batch(**LAYER, units=range(16), steps=60)
    busy = [
        client.visualize(**mine, **more).wait(timeout_s=90) for more in ({"compare": True}, {"images": 2})
    ]
    strangers.wait(timeout_s=90)
    for each in busy:
        assert each.image(0, format="npy") == alone.image(format="npy")
        assert each.result.images[0].curve == alone.result.curve
        assert each.result.kernels == alone.result.kernels != ""


@pytest.mark.engine
def test_of_several_pictures_the_best_comes_unasked(served_url: str, connect: Connect) -> None:
    asked = connect(served_url).visualize(model="digits", layer="fc", unit=3, images=3, compare=True, steps=4)
    result = asked.wait(timeout_s=90).result
    pictures, plain = asked.images(role="proxygrad"), asked.images(role="baseline")
    assert (len(pictures), len(plain)) == (3, 3)
    assert asked.images() == pictures + plain
    assert asked.image() == asked.image(result.best) == pictures[result.best]
    baseline = asked.snapshot.images[result.baseline.image]
    assert result.baseline.achieved_activation == baseline.achieved_activation


@pytest.mark.engine
def test_the_command_for_one_unit_saves_every_picture(
    served_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    submit.add_arguments(parser)
    words = ["digits", "fc", "3", "--images", "3", "--compare", "--steps", "4", "--url", served_url]
    assert submit.run(parser.parse_args([*words, "-o", str(tmp_path / "out.webp")])) == 0
    made = {str(path) for path in tmp_path.iterdir()}
    assert len(made) == 6
    assert {line.split()[1] for line in capsys.readouterr().out.splitlines() if "picture" in line} == made


@pytest.mark.engine
def test_the_command_saves_the_contact_sheet(
    served_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    output = tmp_path / "new" / "sheet.png"
    words = ["digits", "layer3", "--units", "0-5", "--steps", "8", "--url", served_url, "-o", str(output)]
    assert command.run(parser.parse_args(words)) == 0
    out, err = capsys.readouterr()
    assert "6 succeeded" in out
    assert str(output) in out
    assert "digits layer3: 100%" in err
    with Image.open(output) as sheet:
        assert sheet.format == "PNG"


@pytest.mark.engine
def test_the_command_saves_every_page_and_tells_what_it_saved(
    served_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = ["digits", "layer3", "--units", "0-29", "--steps", "2", "--url", served_url]
    words += ["--columns", "1", "--width", "256", "-o", str(tmp_path / "sheet.png")]
    assert command.run(parser.parse_args(words)) == 0
    told = [line.split()[-1] for line in capsys.readouterr().out.splitlines() if "contact sheet" in line]
    assert told == [str(tmp_path / "sheet.png"), str(tmp_path / "sheet-1.png")]
    for path in tmp_path.iterdir():
        path.unlink()
    assert command.run(parser.parse_args([*words, "--no-wait"])) == 0  # it has ended before
    out = capsys.readouterr().out
    assert ("30 succeeded" in out, "contact sheet" in out) == (True, False)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.engine
def test_what_the_page_about_the_client_says_works(
    served_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROXYGRAD_URL", served_url)
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[3] / "docs/client.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(compile(block, "docs/client.md", "exec"), {})
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"unit.png", "fc.png", *(f"{unit}.png" for unit in range(8))}
    assert len(capsys.readouterr().out.split()) == 2

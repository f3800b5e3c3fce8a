"""What a shelf serves, knows from the last time, and does about models that have changed or failed."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="networks are torch's")

from proxygrad.errors import ModelError, UnknownModel
from proxygrad.langevin.discriminator import Discriminator, DiscriminatorArchitecture
from proxygrad.models import Catalog
from proxygrad.spec import Spec
from tests.support.configured_networks import BUILT, save_weights, table
from tests.support.model_caches import ONE, PLENTY, info, loaded, opened, problem, stocked
from workers.execution.compute import check
from workers.jobs.kinds.visualization import VisualizationJob
from workers.models import model_cache as module
from workers.models.model_cache import ModelCache, ModelChanged

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def nothing_built() -> None:
    BUILT.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return stocked(tmp_path)


# -- what is served ------------------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path: Path) -> ModelCache:
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    (tmp_path / "models.toml").write_text(table("broken", weights="broken.safetensors"))
    return ModelCache.open(Catalog.from_file(tmp_path / "models.toml"), "cpu", PLENTY, None)


def test_the_good_one_is_served_and_the_broken_one_explained(broken: ModelCache, tmp_path: Path) -> None:
    assert info(broken, "digits") is not None
    assert problem(broken, "digits") is None
    said = problem(broken, "broken")
    assert said is not None
    assert said.code == "model_unavailable"
    assert str(tmp_path / "broken.safetensors") in said.detail


def test_what_its_operator_should_know_is_logged_at_each_start(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(folder, "a", PLENTY)  # twice: the second time the model is not loaded
    told = [each.levelname for each in caplog.records if each.getMessage().startswith("model a: no class")]
    assert told == ["WARNING"] * 2


def test_a_network_or_the_reason(broken: ModelCache) -> None:
    assert broken.network("digits").info.name == "digits"
    with pytest.raises(ModelError, match=r"broken\.safetensors"):
        broken.network("broken")
    with pytest.raises(UnknownModel, match=r"'digit'.*near names: digits"):
        broken.network("digit")


def test_a_broken_one_is_tried_again_when_its_file_has_changed(broken: ModelCache, tmp_path: Path) -> None:
    BUILT.clear()
    broken.recover()
    assert BUILT["small"] == 0
    save_weights(tmp_path / "broken.safetensors", 0)
    broken.recover()
    assert problem(broken, "broken") is None
    assert broken.network("broken").info == info(broken, "broken")


# -- starting ------------------------------------------------------------------------------------------------


def test_a_second_start_loads_nothing_and_knows_the_same(folder: Path) -> None:
    shelf = opened(folder, "ab", PLENTY)
    assert BUILT == {}
    assert loaded(shelf) == set()
    assert info(shelf, "a") == shelf.network("a").info
    assert BUILT == {"small": 1}


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\xfe", b'{"fingerprint": {}, "info": null}'])
def test_a_damaged_note_is_ignored(folder: Path, damage: bytes) -> None:
    shelf = opened(folder, "a", PLENTY)
    (folder / "notes" / "a.json").write_bytes(damage)
    again = ModelCache.open(shelf._catalog, "cpu", PLENTY, folder / "notes")
    assert BUILT == {"small": 1}
    assert info(again, "a") == info(shelf, "a")


def test_notes_that_cannot_be_kept_only_cost_time(folder: Path) -> None:
    (folder / "file").write_text("")
    (folder / "models.toml").write_text(table("a", weights="a.safetensors"))
    shelf = ModelCache.open(
        Catalog.from_file(folder / "models.toml"), "cpu", PLENTY, folder / "file" / "notes"
    )
    assert info(shelf, "a") is not None


def test_changed_weights_are_found_at_the_start(folder: Path) -> None:
    before = info(opened(folder, "a", PLENTY), "a")
    save_weights(folder / "a.safetensors", 99)
    catalog = Catalog.from_file(folder / "models.toml")
    after = info(ModelCache.open(catalog, "cpu", PLENTY, folder / "notes"), "a")
    assert before is not None
    assert after is not None
    assert before.digest != after.digest


def test_the_first_start_stays_within_the_budget(folder: Path) -> None:
    (folder / "models.toml").write_text(
        "".join(table(name, weights=f"{name}.safetensors") for name in "abcd")
    )
    shelf = ModelCache.open(Catalog.from_file(folder / "models.toml"), "cpu", 2 * ONE, None)
    assert loaded(shelf) == {"c", "d"}


def test_a_discriminator_counts_too(folder: Path) -> None:
    architecture = DiscriminatorArchitecture.suited_to((1, 8, 8), width=2, hidden=4)
    Discriminator(architecture).save(folder / "d.safetensors")
    tables = [table(name, weights=f"{name}.safetensors") for name in "ab"]
    for more, both in (("", {"a", "b"}), ('discriminator = "d.safetensors"\n', {"b"})):
        (folder / "models.toml").write_text("".join(each + more for each in tables))
        shelf = ModelCache.open(Catalog.from_file(folder / "models.toml"), "cpu", 2 * ONE, None)
        assert loaded(shelf) == both


def test_weights_drawn_anew_each_time_stay_and_are_never_noted(folder: Path) -> None:
    (folder / "models.toml").write_text(
        table("random") + table("constant", "constant") + table("a", weights="a.safetensors")
    )
    catalog = Catalog.from_file(folder / "models.toml")
    shelf = ModelCache.open(catalog, "cpu", ONE, folder / "notes")
    assert sorted(file.name for file in (folder / "notes").iterdir()) == [
        "a.json",
        "constant.json",
        "digits.json",
    ]
    first = shelf.network("random")
    shelf.network("a")
    assert shelf.network("random") is first
    BUILT.clear()
    assert ModelCache.open(catalog, "cpu", ONE, folder / "notes").network("constant").info == info(
        shelf, "constant"
    )
    assert BUILT == {"small": 2, "constant": 1}  # twice to see that it differs; once because it was wanted


# -- what goes wrong on the way ------------------------------------------------------------------------------


def test_weights_that_changed_fail_the_question_and_are_published(folder: Path) -> None:
    shelf = opened(folder, "a", PLENTY)
    before = info(shelf, "a")
    save_weights(folder / "a.safetensors", 99)
    with pytest.raises(ModelChanged, match="the files of model 'a' have changed"):
        shelf.network("a")
    after = info(shelf, "a")
    assert after is not None
    assert before != after
    assert shelf.network("a").info == after
    BUILT.clear()
    assert info(ModelCache.open(shelf._catalog, "cpu", PLENTY, folder / "notes"), "a") == after
    assert BUILT == {}


def test_a_failure_is_published_and_not_repeated_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = opened(folder, "a", PLENTY)
    weights = (folder / "a.safetensors").read_bytes()
    (folder / "a.safetensors").unlink()
    with pytest.raises(ModelError, match="does not exist"):
        shelf.network("a")
    assert (said := problem(shelf, "a")) is not None
    assert "a.safetensors does not exist" in said.detail
    (folder / "a.safetensors").write_bytes(weights)
    with pytest.raises(ModelError, match="does not exist"):
        shelf.network("a")  # not tried again for half a minute
    assert BUILT["small"] == 1
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    assert shelf.network("a").name == "a"
    assert problem(shelf, "a") is None


def test_a_model_that_failed_comes_back_by_itself(folder: Path) -> None:
    shelf = opened(folder, "a", PLENTY)
    weights = (folder / "a.safetensors").read_bytes()
    (folder / "a.safetensors").unlink()
    with pytest.raises(ModelError):
        shelf.network("a")
    shelf.recover()
    assert problem(shelf, "a") is not None
    (folder / "a.safetensors").write_bytes(weights)
    shelf.recover()
    assert problem(shelf, "a") is None
    assert loaded(shelf) == {"a"}
    assert shelf._places["a"].users == 0


def test_a_job_of_other_weights_is_refused(folder: Path) -> None:
    shelf = opened(folder, "ab", PLENTY)
    asked = info(shelf, "a")
    assert asked is not None
    spec = Spec(model="a", layer=asked.layers[0].name, unit=1).resolve(asked)
    job = VisualizationJob(
        id=spec.identity(asked), spec=spec, state="running", created_at=0.0, steps=spec.steps
    )
    check(shelf.network("a"), VisualizationJob.model_validate_json(job.model_dump_json()))
    with pytest.raises(ModelError, match="other weights than when the question was asked"):
        check(shelf.network("b"), job)

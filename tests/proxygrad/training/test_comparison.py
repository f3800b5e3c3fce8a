"""Runs are repeatable and paired, they measure what they say, and a comparison goes on from its file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from proxygrad.cli import train as command
from proxygrad.errors import InvalidRequest, ModelError
from proxygrad.training import comparison as comparisons
from proxygrad.training.architectures import CONV_PLAN, MLP_DEPTH, ArchitectureName, build
from proxygrad.training.comparison import Comparison, Interval, compare, table
from proxygrad.training.datasets import Dataset
from proxygrad.training.methods import Method
from proxygrad.training.runs import TrainingRecipe, TrainingRun, accuracy, activity, gradient_norms, train

RECIPE = TrainingRecipe(data="digits", network="mlp", epochs=2, batch=16)
METHODS = [Method.parse(name) for name in ("relu", "proxygrad:0.05", "gaf:atan")]


@pytest.fixture(scope="module")
def blobs() -> Dataset:
    """Three kinds of images of 8 x 8 that a network can tell apart."""
    own = torch.Generator().manual_seed(0)
    centers = torch.randn(3, 1, 8, 8, generator=own)
    labels = torch.arange(120) % 3
    images = centers[labels] + 0.3 * torch.randn(120, 1, 8, 8, generator=own)
    return Dataset("digits", images[:90], labels[:90], images[90:], labels[90:], classes=3)


def same(one: TrainingRun, other: TrainingRun) -> bool:
    return one.model_copy(update={"seconds": 0.0}) == other.model_copy(update={"seconds": 0.0})


def test_a_run_learns_and_is_repeatable(blobs: Dataset) -> None:
    found = [train(blobs, RECIPE, METHODS[1], seed) for seed in (0, 0, 1)]
    assert same(found[0], found[1])
    assert not same(found[0], found[2])
    assert found[0].accuracy > 0.9
    assert found[0].losses[-1] < found[0].losses[0]
    assert len(found[0].gradient_norms) == len(found[0].gradient_norms_end) == MLP_DEPTH + 1
    assert len(found[0].sparsity) == len(found[0].dead_units) == MLP_DEPTH
    assert all(0 < share < 1 for share in found[0].sparsity)


def test_runs_of_a_seed_start_alike(blobs: Dataset) -> None:
    """Slope 0 and factor 1 are ReLU itself, to the bit."""
    plain, proxy = (train(blobs, RECIPE, Method.parse(name), 3) for name in ("relu", "proxygrad:0"))
    assert same(plain, proxy.model_copy(update={"method": "relu"}))


def test_a_run_that_diverges_ends_and_says_so(blobs: Dataset) -> None:
    wild = RECIPE.model_copy(update={"sgd_rate": 1e6})
    run = train(blobs, wild, Method.parse("relu"), 0)
    assert (run.diverged, run.accuracy, run.sparsity) == (True, 0.0, [])
    row = Comparison(recipe=wild, runs=[run]).summary([Method.parse("relu")])[0]
    assert (row.diverged, row.sparsity, row.dead) == (1, None, None)
    assert "relu (1 diverged)" in table([row])[1]


@pytest.mark.parametrize("name", ["mlp", "mlp_bn", "conv", "conv_bn"])
def test_networks_are_those_that_are_described(name: ArchitectureName) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    network = build(name, (3, 32, 32) if "conv" in name else (1, 8, 8), 7, nn.ReLU, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert network(torch.rand(2, *((3, 32, 32) if "conv" in name else (1, 8, 8)))).shape == (2, 7)
    kinds = [type(each).__name__ for each in network]
    layers = MLP_DEPTH if "mlp" in name else len([each for each in CONV_PLAN if each != "pool"])
    assert kinds.count("ReLU") == layers
    assert sum("BatchNorm" in kind for kind in kinds) == (layers if name.endswith("_bn") else 0)


def test_gradients_sparsity_and_dead_units_are_counted_right() -> None:
    """One layer of three units: one always active, one never, one for the first of two images."""
    first, last = nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False)
    network = nn.Sequential(first, nn.ReLU(), last)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]]))
    images, labels = torch.tensor([[2.0, 1.0], [1.0, 2.0]]), torch.tensor([0, 1])
    sparsity, alive = activity(network, images)
    assert sparsity == [pytest.approx(3 / 6)]
    assert alive[0].tolist() == [True, False, True]
    assert network.training

    for method in (Method.parse("relu"), Method.parse("proxygrad:0.5")):
        norms = gradient_norms(network, images, labels, method, 0.0)
        assert first.weight.grad is None
        with method.block(0.0):
            loss = nn.functional.cross_entropy(network(images), labels)
        own = torch.autograd.grad(loss, [first.weight, last.weight])
        assert norms == pytest.approx([each.norm().item() for each in own])
    right = network(images).argmax(dim=1)
    assert accuracy(network, images, right) == 1.0


def test_intervals_are_students() -> None:
    """1, 2, 3: mean 2, deviation 1, t(.975; 2) = 4.303 (any table)."""
    interval = Interval.of([1.0, 2.0, 3.0])
    assert interval.mean == 2
    assert interval.half == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    assert not interval.excludes_zero
    assert Interval.of([0.5]).percent() == "50.00"
    assert Interval(mean=0.01, half=0.002).percent(signed=True) == "+1.00 ± 0.20"


def run_of(method: str, seed: int, share: float) -> TrainingRun:
    return TrainingRun(
        method=method,
        seed=seed,
        accuracy=share,
        accuracies=[share],
        losses=[1.0],
        gradient_norms=[1.0, 2.0],
        gradient_norms_end=[1.0],
        sparsity=[0.5],
        dead_units=[1],
        units=[4],
        diverged=False,
        seconds=1.0,
    )


def test_differences_are_taken_seed_by_seed() -> None:
    """Seeds that differ much, and a gain of .01 in each: the paired interval is narrow."""
    runs = [run_of("relu", seed, share) for seed, share in enumerate((0.5, 0.7, 0.9))]
    runs += [run_of("gaf:atan", seed, share) for seed, share in ((2, 0.91), (0, 0.51), (1, 0.71))]
    rows = Comparison(recipe=RECIPE, runs=runs).summary([METHODS[0], METHODS[2]])
    assert rows[1].accuracy.half is not None
    assert rows[1].accuracy.half > 0.4
    assert rows[1].difference.mean == pytest.approx(0.01)
    assert rows[1].difference.half == pytest.approx(0, abs=1e-9)
    assert rows[1].difference.excludes_zero
    assert (rows[1].dead, rows[1].first_layer) == (0.25, 0.5)


def test_an_interrupted_comparison_goes_on_where_it_was(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, trained = tmp_path / "results.json", list[tuple[str, int]]()

    def counted(dataset: Dataset, recipe: TrainingRecipe, method: Method, seed: int) -> TrainingRun:
        if len(trained) == 2 and not path.with_suffix(".went-on").exists():
            path.with_suffix(".went-on").touch()
            raise KeyboardInterrupt
        trained.append((method.name, seed))
        return train(dataset, recipe, method, seed)

    monkeypatch.setattr(comparisons, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        compare(blobs, RECIPE, METHODS, [0], path)
    found = compare(blobs, RECIPE, METHODS, [0], path)
    assert trained == [(method.name, 0) for method in METHODS]
    assert Comparison.model_validate_json(path.read_bytes()) == found
    with pytest.raises(InvalidRequest, match="epochs 2 instead of 3"):
        compare(blobs, RECIPE.model_copy(update={"epochs": 3}), METHODS, [0], path)
    path.write_text("{")
    with pytest.raises(ModelError, match="holds no comparison"):
        compare(blobs, RECIPE, METHODS, [0], path)


def run_command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(words))


def test_the_command_prints_a_table_and_writes_the_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn", reason="the images come with scikit-learn")
    path = tmp_path / "results.json"
    words = [
        "--method",
        "relu",
        "proxygrad",
        "--slopes",
        "0.05",
        "--seeds",
        "1",
        "--epochs",
        "1",
        "--network",
        "mlp_bn",
    ]
    assert run_command(*words, "-o", str(path)) == 0
    shown = capsys.readouterr().out
    assert "1442 images to train on, 355 held out" in shown
    assert [line.split()[0] for line in shown.splitlines()[1:]] == ["method", "relu", "proxygrad:0.05"]
    assert [run["method"] for run in json.loads(path.read_text())["runs"]] == ["relu", "proxygrad:0.05"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "svhn"], "data 'svhn'"),
        (["--epochs", "0"], "epochs 0"),
        (["--network", "vit"], "network 'vit'"),
        (["--seeds", "0"], "seeds 0"),
        (["--method", "elu"], "method 'elu'; there are relu"),
        (["--slopes", "2"], "slope '2'"),
        (["--data", "mnist"], "'mnist' needs the folder"),
    ],
)
def test_what_cannot_be_is_named(words: list[str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        run_command(*words)

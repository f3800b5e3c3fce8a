"""The tape: values as they were, whatever is written over them; views, memory and layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from proxygrad.attribution.recording.adjoints import Adjoints
from proxygrad.attribution.recording.tape import Recorder, SlowPaths, Tape, watch_modules
from proxygrad.attribution.rules.decompositions import DECOMPOSITIONS, attention


def record(function: Any, x: Tensor, modules: dict[str, nn.Module] | None = None) -> Tape:
    recorder = Recorder(DECOMPOSITIONS)
    with torch.no_grad(), watch_modules(recorder, modules or {}, lambda layer, output: None):
        recorder.follow(x)
        with recorder:
            function(x)
    return recorder.tape


def names(tape: Tape) -> list[str]:
    return [call.name for call in tape.calls]


def test_numbers_are_those_of_the_moment() -> None:
    def function(x: Tensor) -> Tensor:
        y = x * 2
        y.add_(1)
        half = y[:, 1:]
        half.mul_(y[:, :1])
        y.zero_()
        return y

    x = torch.tensor([[1.0, 2.0, 3.0]])
    multiplied, added, halved, emptied = record(function, x).calls
    assert [call.name for call in (multiplied, added, halved, emptied)] == ["mul", "add", "mul", "zero"]
    assert [call.args[0].value.tolist() for call in (multiplied, added, halved, emptied)] == [
        [[1, 2, 3]],
        [[2, 4, 6]],
        [[5, 7]],
        [[3, 15, 21]],
    ]
    assert [call.outs[0].value.tolist() for call in (multiplied, added, halved, emptied) if call.outs[0]] == [
        [[2, 4, 6]],
        [[3, 5, 7]],
        [[15, 21]],
        [[0, 0, 0]],
    ]


def test_constants_are_those_of_the_moment_too() -> None:
    def function(x: Tensor) -> Tensor:
        scale = torch.ones(2)
        first = x * scale
        scale.fill_(5.0)
        return first * scale

    first, second = record(function, torch.ones(1, 2)).calls
    assert first.args[1].value.tolist() == [1, 1]
    assert second.args[1].value.tolist() == [5, 5]


def test_views_and_constants_are_no_calls() -> None:
    def function(x: Tensor) -> Tensor:
        mask = torch.ones(3, 3).tril()
        y = x.view(3, 1).expand(3, 3).t().unbind(0)[0].contiguous()
        return y + torch.zeros_like(y) + mask.sum()

    assert names(record(function, torch.ones(3))) == ["add", "add"]


def test_attention_runs_operation_by_operation() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True).eval()
    with SlowPaths(attention):
        tape = record(layer, torch.rand(2, 3, 8))
    assert {"bmm", "_safe_softmax", "addmm", "sqrt"} <= set(names(tape))
    assert not [name for name in names(tape) if "attention" in name or "transformer" in name]


def test_each_call_knows_its_layers() -> None:
    inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    outer = nn.Sequential(inner, inner)
    tape = record(outer, torch.rand(1, 2), {name: each for name, each in outer.named_modules() if name})
    assert [(call.name, call.layer) for call in tape.calls] == [
        ("addmm", ("0", "0.0")),
        ("relu", ("0", "0.1")),
        ("addmm", ("0@2", "0.0@2")),
        ("relu", ("0@2", "0.1@2")),
    ]


def test_multipliers_are_summed_where_positions_show_the_same_number() -> None:
    x = torch.rand(5)
    windows, repeated = record(lambda x: x.unfold(0, 3, 1) + x[1:4].expand(3, 3), x).calls[0].args[:2]
    adjoints = Adjoints()
    adjoints.add(windows, torch.ones(3, 3))
    assert adjoints.read(windows) is not None
    whole = Recorder({}).follow(torch.rand(5))
    adjoints.add(repeated, torch.tensor([[1.0, 2.0, 3.0]] * 3))
    row = adjoints.take(replace(whole, memory=windows.memory))
    assert row is not None
    assert row.tolist() == [1, 2 + 3, 3 + 6, 2 + 9, 1]
    assert adjoints.take(windows) is None


def test_a_place_that_was_written_is_empty_afterwards() -> None:
    (call,) = record(lambda x: x[:, 1:].mul_(2), torch.rand(2, 3)).calls
    (before,) = (place for place in call.places if place.varies)
    after = call.outs[0]
    assert after is not None
    adjoints = Adjoints()
    whole = before.memory.place(torch.empty(2, 3))
    adjoints.add(whole, torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    taken = adjoints.take(after)
    assert taken is not None
    assert taken.tolist() == [[2, 3], [5, 6]]
    adjoints.add(before, 2 * taken)
    left = adjoints.read(whole)
    assert left is not None
    assert left.tolist() == [[1, 4, 6], [4, 10, 12]]

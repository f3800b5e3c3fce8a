"""The layers print as a table that fits a screen."""

from __future__ import annotations

import pytest
from torch import nn

from proxygrad.errors import InvalidRequest, UnknownLayer
from proxygrad.networks.layer_table import SHOWN_ROWS
from proxygrad.networks.network import Network
from tests.support.networks import small


def test_the_layers_are_a_table() -> None:
    lines = str(small().layers).splitlines()
    assert lines[0].split() == ["layer", "kind", "type", "units", "shape", "activation"]
    assert lines[1].split() == ["conv", "feature_map", "Conv2d", "8", "8x16x16", "-"]
    assert lines[3].split() == ["relu", "feature_map", "ReLU", "8", "8x16x16", "post", "relu"]
    assert lines[-1].split() == ["fc", "logits", "Linear", "4", "4", "-"]


def test_a_long_table_leaves_out_its_middle() -> None:
    deep = Network(nn.Sequential(*[nn.Conv2d(1, 1, 1) for _ in range(70)]), (1, 8, 8))
    short = repr(deep.layers).splitlines()
    assert len(short) == SHOWN_ROWS + 2
    assert "… 30 more; print() shows all" in short
    assert len(str(deep.layers).splitlines()) == 71
    assert deep.layers._repr_html_().count("<tr>") == 71


def test_a_layer_is_found_by_its_name() -> None:
    network = small()
    assert network["conv2"].units == 6
    assert network["output"] == network["fc"] == network.layers[-1]
    with pytest.raises(UnknownLayer, match="near names: conv"):
        network["conv3"]
    with pytest.raises(InvalidRequest, match="layer 0 is of type int; valid: its name"):
        network[0]  # type: ignore[index]
    with pytest.raises(TypeError, match="not iterable"):
        list(network)  # type: ignore[call-overload]


def test_a_network_says_what_it_is_in_one_line() -> None:
    assert repr(small()) == "Network('small', input 3x16x16, 5 layers, on cpu)"

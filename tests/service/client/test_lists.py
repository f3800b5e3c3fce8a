"""What there is to ask about and what was asked, with either kind of client."""

from __future__ import annotations

from typing import Any

import pytest

from service.client import NotFound
from service.client._async import catalog
from tests.service.client.conftest import QUESTION
from tests.service.conftest import Player


def test_models_and_layers(client: Any) -> None:
    assert {model.name: model.ready for model in client.models()} == {"broken": False, "digits": True}
    assert client.model("digits").layer_count == 3
    assert [layer.units for layer in client.layers("digits")] == [32, 64, 10]
    assert client.layer("digits", "fc").objectives == ("logit", "neuron", "margin")
    with pytest.raises(NotFound, match="layer3"):
        client.layer("digits", "layer 3")


def test_lists_go_through_all_pages(client: Any, player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "PAGE", 2)
    ids = [client.visualize(**QUESTION | {"unit": unit}).id for unit in range(5)]
    player.succeed(ids[1])
    assert [one.id for one in client.visualizations()] == ids[::-1]
    assert [one.id for one in client.visualizations(model="digits", state="succeeded")] == [ids[1]]
    assert len([*client.visualizations(state=["queued", "running"], layer=["layer3", "fc"])]) == 4
    assert [*client.visualizations(layer="layer2")] == []

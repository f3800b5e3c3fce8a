"""How much is sent, and how what is generated is bent towards what the service can answer.

Questions that are generated freely name models that there are not. So most of the valid ones are turned to
those that there are and few steps, and most ids to ones that there are: the service then has something to do.
"""

from __future__ import annotations

import io
import random
from collections import deque
from dataclasses import dataclass
from typing import Any

from PIL import Image
from schemathesis import Case, GenerationMode
from schemathesis.core.parameters import ParameterLocation
from schemathesis.transport.serialization import Binary

#: The units of layers by model: the bundled one, and one whose classes have no names.
MODELS = {
    "digits": {"layer1": 16, "layer2": 32, "layer3": 64, "fc": 10},
    "nameless": {"0": 8, "1": 8, "3": 4},
}
#: Of requests that are valid, so many are turned to what there is.
TURNED = 0.7
MOST_STEPS = 6
MOST_SIZE_PX = 48
#: Long waits are for other tests.
MOST_WAIT_S = 0.05
RECENT = 40


@dataclass(frozen=True)
class Scale:
    """How many requests: generated freely for each operation, chains of calls, and with each kind of key."""

    examples: int
    chains: int
    chain_steps: int
    keyed: int
    coverage: bool


LONG = Scale(examples=500, chains=150, chain_steps=8, keyed=25, coverage=True)
SHORT = Scale(examples=4, chains=2, chain_steps=5, keyed=1, coverage=False)


class Bend:
    """Turns generated requests towards what there is; remembers the ids that were answered."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._ids: dict[str, deque[str]] = {}

    def before(self, case: Case[Any]) -> None:
        """Bend the valid parts of ``case``; what was made invalid stays so."""
        meta = case.meta
        if meta is None:
            return
        valid = {place for place, info in meta.components.items() if info.mode == GenerationMode.POSITIVE}
        if ParameterLocation.QUERY in valid and "wait" in case.query:
            case.query["wait"] = min(float(case.query["wait"]), MOST_WAIT_S)
        if self._random.random() > TURNED:
            return
        if ParameterLocation.BODY in valid and isinstance(case.body, dict):
            case.freeze_metadata()  # else a changed body with a file counts as invalid, whatever it is
            attribution = _collection(case.path) == "/v1/attributions"
            case.body = self._attribution(case.body) if attribution else self._question(case.body)
        if ParameterLocation.PATH in valid:
            self._turn_path(case)

    def after(self, case: Case[Any], status: int, answer: Any) -> None:
        """Remember what a POST made."""
        if case.method.upper() == "POST" and status in (200, 202) and isinstance(answer, dict):
            name = str(answer.get("id", ""))
            self._ids.setdefault(_collection(case.path), deque(maxlen=RECENT)).append(name)

    def _question(self, body: dict[str, Any]) -> dict[str, Any]:
        model = self._random.choice(list(MODELS))
        layer = self._random.choice(list(MODELS[model]))
        turned = {**body, "model": model, "layer": layer}
        if "unit" in body:
            turned["unit"] = self._random.randrange(MODELS[model][layer])
        turned["steps"] = self._random.randint(1, MOST_STEPS)
        if "unit" not in body:  # a batch: few of them
            turned["units"] = {"start": 0, "stop": self._random.randint(1, 3)}
        if isinstance(body.get("images"), int):
            turned["images"] = min(body["images"], 2)
        if isinstance(body.get("size_px"), int):
            turned["size_px"] = min(body["size_px"], MOST_SIZE_PX)
        return turned if self._random.random() < TURNED else turned | {"objective": None, "position": None}

    def _attribution(self, body: dict[str, Any]) -> dict[str, Any]:
        """A form with a picture, or the document alone, of a visualization that was asked for."""
        form = "attribution" in body
        document = body["attribution"] if form else body
        if not isinstance(document, dict):
            return body
        model = self._random.choice(list(MODELS))
        layer = self._random.choice(list(MODELS[model]))
        unit = self._random.randrange(MODELS[model][layer])
        turned = {**document, "model": model, "layer": layer, "unit": unit, "size_px": None}
        if self._random.random() < TURNED:
            plain = {"method": "deeplift", "rule": self._random.choice(["auto", "rescale"]), "at": None}
            turned |= {"objective": None, "position": None, "points": 50, **plain}
        if form:
            turned["image"] = None
            return {**body, "attribution": turned, "image": self._picture()}
        known = self._ids.get("/v1/visualizations")
        if known:
            turned["image"] = {"visualization": self._random.choice(known), "number": 0}
        return turned

    def _picture(self) -> Binary:
        level, side = self._random.randrange(256), self._random.choice([8, 32, 40])
        buffer = io.BytesIO()
        Image.new("L", (side, 32), level).save(buffer, self._random.choice(["PNG", "JPEG", "WEBP"]))
        return Binary(buffer.getvalue())

    def _turn_path(self, case: Case[Any]) -> None:
        known, model = self._ids.get(_collection(case.path)), self._random.choice(list(MODELS))
        for name in case.path_parameters:
            if name == "model":
                case.path_parameters[name] = model
            elif name == "layer":
                case.path_parameters[name] = self._random.choice(list(MODELS[model]))
            elif name.endswith("_id") and known:
                case.path_parameters[name] = self._random.choice(known)
            elif name == "name":
                case.path_parameters[name] = self._random.choice(["heatmap", "overlay.webp", "none"])
            elif name == "number":
                case.path_parameters[name] = self._random.choice(["0", "0.png", "0.webp", "0.npy", "1"])


def _collection(path: str) -> str:
    """`/v1/visualizations` of `/v1/visualizations/{visualization_id}/retry`."""
    return "/".join(path.split("/")[:3])

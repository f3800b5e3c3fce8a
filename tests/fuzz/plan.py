"""How much is sent, and how what is generated is bent towards what the service can answer.

Questions that are generated freely name models that there are not. So most of the valid ones are turned to
those that there are and few steps, and most ids to ones that there are: the service then has something to do.
"""

from __future__ import annotations

import io
import random
from collections import defaultdict, deque
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
#: Of the questions so turned, so many ask for chains.
CHAINS = 0.2
#: What a question for chains keeps of one that was generated for ascents.
KEPT_FOR_CHAINS = ("unit", "seed", "size_px", "priority", "deadline_s", "webhook")
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
    """Turns generated requests towards what there is; remembers the ids that were answered, and of those
    the ones that have succeeded."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._ids: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._succeeded: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=RECENT))

    def before(self, case: Case[Any]) -> None:
        """Bend the valid parts of ``case``; what was made invalid stays so."""
        for name in [name for name, value in case.query.items() if value is None or isinstance(value, dict)]:
            del case.query[name]  # made invalid by that alone, and on the wire nothing, or a list
        meta = case.meta
        if meta is None:
            return
        valid = {place for place, info in meta.components.items() if info.mode == GenerationMode.POSITIVE}
        if ParameterLocation.QUERY in valid and "wait" in case.query:
            case.query["wait"] = min(float(case.query["wait"]), MOST_WAIT_S)
        if self._random.random() > TURNED:
            return
        if ParameterLocation.QUERY in valid and "chain" in case.query:
            case.query["chain"] = self._random.randrange(3)
        if ParameterLocation.HEADER in valid and "idempotency-key" in case.headers:
            case.headers["idempotency-key"] = f"{self._random.random()}"  # else most are those of others
        if ParameterLocation.PATH in valid:
            self._turn_path(case)
        if ParameterLocation.BODY in valid and isinstance(case.body, dict):
            attribution = _collection(case.path) == "/v1/attributions"
            case.body = self._attribution(case.body) if attribution else self._question(case.body)
            if attribution:  # else a changed body with a file counts as invalid, whatever it is
                case._record_starting_state()

    def after(self, case: Case[Any], status: int, answer: Any) -> None:
        """Remember what a POST made, and what is seen to have succeeded."""
        if status not in (200, 202) or not isinstance(answer, dict):
            return
        collection = _collection(case.path)
        if case.method.upper() == "POST" and "id" in answer:
            self._ids[collection].append(answer["id"])
        for document in [answer, *answer.get(collection.rpartition("/")[2], ())]:
            known = self._succeeded[collection]
            if document.get("state") == "succeeded" and document["id"] not in known:
                known.append(document["id"])

    def _question(self, body: dict[str, Any]) -> dict[str, Any]:
        model = self._random.choice(list(MODELS))
        layer = self._random.choice(list(MODELS[model]))
        chains = self._random.random() < CHAINS
        turned = {**(self._chains(body, model) if chains else body), "model": model, "layer": layer}
        if "unit" in body:
            turned["unit"] = self._random.randrange(MODELS[model][layer])
        else:  # a batch: few of them
            turned["units"] = {"start": 0, "stop": self._random.randint(1, 3)}
        if chains:
            return turned
        turned["steps"] = self._random.randint(1, MOST_STEPS)
        if isinstance(body.get("images"), int):
            turned["images"] = min(body["images"], 2)
        if isinstance(body.get("size_px"), int):
            turned["size_px"] = min(body["size_px"], MOST_SIZE_PX)
        return turned if self._random.random() < TURNED else turned | {"objective": None, "position": None}

    def _chains(self, body: dict[str, Any], model: str) -> dict[str, Any]:
        """A question of the sampler `langevin`, without what applies to ascents alone."""
        kept = {name: body[name] for name in KEPT_FOR_CHAINS if name in body}
        if isinstance(kept.get("size_px"), int):
            kept["size_px"] = min(kept["size_px"], MOST_SIZE_PX)
        chains = self._random.randint(1, 3)
        settings: dict[str, Any] = {
            "chains": chains,
            "burn_in": self._random.randrange(3),
            "thinning": self._random.randint(1, 2),
            "variant": self._random.choice(["sgld", "authors"]),
        }
        if model != "digits" or self._random.random() < 0.5:  # of these, digits alone has a discriminator
            settings["discriminator_weight"] = 0.0
        else:
            kept["size_px"] = None
        images = chains * self._random.randint(1, 2)
        return {**kept, "sampler": "langevin", "langevin": settings, "images": images}

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
        turned["image"] = {"visualization": self._known("/v1/visualizations"), "number": 0}
        return turned

    def _picture(self) -> Binary:
        level, side = self._random.randrange(256), self._random.choice([8, 32, 40])
        buffer = io.BytesIO()
        Image.new("L", (side, 32), level).save(buffer, self._random.choice(["PNG", "JPEG", "WEBP"]))
        return Binary(buffer.getvalue())

    def _known(self, collection: str) -> str:
        """Mostly the id of one that succeeded; where there is none, an id of nothing."""
        several = self._succeeded[collection] if self._random.random() < TURNED else self._ids[collection]
        return self._random.choice(several or self._ids[collection] or ["0" * 32])

    def _turn_path(self, case: Case[Any]) -> None:
        model = self._random.choice(list(MODELS))
        for name in case.path_parameters:
            if name == "model":
                case.path_parameters[name] = model
            elif name == "layer":
                case.path_parameters[name] = self._random.choice(list(MODELS[model]))
            elif name.endswith("_id"):
                case.path_parameters[name] = self._known(_collection(case.path))
            elif name == "name":
                case.path_parameters[name] = self._random.choice(["heatmap", "overlay.webp", "none"])
            elif name == "number":
                case.path_parameters[name] = self._random.choice(["0", "0.png", "0.webp", "0.npy", "1"])


def _collection(path: str) -> str:
    """`/v1/visualizations` of `/v1/visualizations/{visualization_id}/retry`."""
    return "/".join(path.split("/")[:3])

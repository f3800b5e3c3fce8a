"""What a run of the chaos is made of, all drawn from its seed: questions of several callers, and faults."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass, replace
from typing import Any, Literal

from PIL import Image

from proxygrad.protocol.attributions import AttributionRequest
from proxygrad.protocol.requests import BatchRequest, VisualizationRequest
from proxygrad.spec import ModelInfo

#: What is to become of a question.
#:
#: ``plain``, ``batch``, ``patient`` (a deadline far off): it succeeds. ``twin``: another caller's. ``unit``:
#: of a bundle, which is a batch. ``canceled``: its caller loses interest, maybe too late. ``hurried``: its
#: deadline may pass, waiting or running. ``foreign``: asked of other weights than any worker has, as when a
#: file changes while a job waits. ``outside``: a position that only the network can tell is outside its grid,
#: at another size than its own. ``chains``: of the sampler `langevin`. ``upload``: an attribution of a
#: picture that is sent. ``image``: one of a visualization that the same caller has, or else of a picture.
Kind = Literal[
    "plain",
    "batch",
    "patient",
    "twin",
    "canceled",
    "hurried",
    "foreign",
    "outside",
    "unit",
    "chains",
    "upload",
    "image",
]
KINDS: dict[Kind, float] = {
    "plain": 50,
    "batch": 20,
    "patient": 5,
    "twin": 5,
    "canceled": 8,
    "hurried": 7,
    "foreign": 2,
    "outside": 3,
    "chains": 8,
    "upload": 8,
    "image": 6,
}

FaultKind = Literal[
    "worker kill -9",
    "worker paused",
    "worker drained",
    "Redis kill -9",
    "Redis crash",
    "Redis paused",
    "gateway kill -9",
    "worker upgraded",
    "clock ahead",
    "clock behind",
    "store full",
    "files damaged",
]
#: How often a kind is drawn, beside once for certain.
FAULTS: dict[FaultKind, float] = {
    "worker kill -9": 4,
    "worker paused": 3,
    "worker drained": 3,
    "Redis kill -9": 2,
    "Redis crash": 2,
    "Redis paused": 2,
    "gateway kill -9": 2,
    "worker upgraded": 2,
    "clock ahead": 1,
    "clock behind": 1,
    "store full": 1,
    "files damaged": 2,
}
#: Those that need a library of our own before the C library.
COMPILED: frozenset[FaultKind] = frozenset({"clock ahead", "clock behind", "store full"})
#: What an attribution asks for beside its unit.
ATTRIBUTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"rule": "revealcancel", "reference": "blurred"},
    {"method": "integrated_gradients", "points": 100},
    {"method": "saliency"},
)
#: How far Redis' clock is set.
CLOCK_STEP_S = 3600.0
#: Seconds from and to which a fault lasts; a lease lasts 6, an answer of Redis is waited for 10. What was
#: killed is started again at the end of it; a machine that pauses loses its leases.
LASTS_S: dict[FaultKind, tuple[float, float]] = {
    "worker kill -9": (0.5, 2),
    "worker paused": (8, 12),
    "worker drained": (0.5, 2),
    "Redis kill -9": (0.5, 6),
    "Redis crash": (0.5, 6),
    "Redis paused": (2, 13),
    "gateway kill -9": (0.5, 2),
    "worker upgraded": (0.5, 2),
    "clock ahead": (2, 6),
    "clock behind": (2, 6),
    "store full": (1, 4),
    "files damaged": (0.1, 0.2),
}
#: What a process may be late by, where the machine is busy with more than this run.
SPARE_S = 10.0
#: The longest that Redis is away, once in a long run.
REDIS_AWAY_S = 20.0

#: Callers at the queue itself, each by its name, and callers over HTTP, who are all one to the gateway.
AT_THE_QUEUE = ("ann", "ben", "eva", "ole")
OVER_HTTP = ("http-1", "http-2")


@dataclass(frozen=True)
class Scale:
    """The size of a run: questions and faults come within ``spread_s``, the rest takes ``settle_s`` at most.

    Of the spans in `LASTS_S` the first part, ``stretch``, is used; of the steps of a job, ``length``.
    """

    jobs: int
    faults: int
    spread_s: float
    settle_s: float
    workers: int = 3
    slots: int = 8
    grace_s: float = 5.0
    stretch: float = 1.0
    length: float = 1.0
    bundles: int = 0
    bundle_units: int = 8
    without: tuple[FaultKind, ...] = ()

    @property
    def limit_s(self) -> float:
        """When a run that hangs is given up: its parts, and a minute and a half to start and to look."""
        return self.spread_s + self.settle_s + 90


LONG = Scale(jobs=1000, faults=28, spread_s=330, settle_s=170, length=0.25, bundles=30)
SOAK = Scale(jobs=200, faults=12, spread_s=40, settle_s=150, slots=4, stretch=0.2, length=0.25, bundles=4)
#: Each kind of fault once, and little enough to compute for a run among the other tests. A worker that is
#: upgraded is drained.
SHORT = Scale(
    jobs=52,
    faults=11,
    spread_s=20,
    settle_s=150,
    workers=2,
    slots=4,
    stretch=0.2,
    length=0.1,
    bundles=2,
    bundle_units=4,
    without=("worker drained",),
)


@dataclass(frozen=True)
class Question:
    """One question of one caller, ``at_s`` seconds after the beginning."""

    number: int
    caller: str
    at_s: float
    kind: Kind
    request: VisualizationRequest | AttributionRequest
    cancel_after_s: float | None = None
    #: Of an attribution: the picture, and the visualization whose image takes its place.
    picture: bytes = b""
    image_of: str = ""


@dataclass(frozen=True)
class Bundle:
    """A batch that is asked for ``at_s`` seconds after the beginning."""

    number: int
    at_s: float
    request: BatchRequest


@dataclass(frozen=True)
class Fault:
    """``pick``, 0 to 1, says which of several processes it hits."""

    kind: FaultKind
    at_s: float
    lasts_s: float
    pick: float


@dataclass(frozen=True)
class Plan:
    """Everything that will happen, each in the order of its time."""

    questions: tuple[Question, ...]
    faults: tuple[Fault, ...]
    bundles: tuple[Bundle, ...]


def draw(seed: int, scale: Scale, model: ModelInfo, without: frozenset[FaultKind] = frozenset()) -> Plan:
    """The plan of that seed; ``without``: faults that cannot be brought about here."""
    dice = random.Random(seed)
    times = sorted(dice.uniform(0, scale.spread_s) for _ in range(scale.jobs))
    questions: list[Question] = []
    for number, at_s in enumerate(times):
        questions.append(_question(dice, seed, number, at_s, questions, model, scale))
    faults = tuple(_faults(dice, scale, without.union(scale.without)))
    bundles = tuple(_bundle(dice, seed, number, model, scale) for number in range(scale.bundles))
    return Plan(tuple(questions), faults, tuple(sorted(bundles, key=lambda bundle: bundle.at_s)))


def _bundle(dice: random.Random, seed: int, number: int, model: ModelInfo, scale: Scale) -> Bundle:
    layer = model.layer(dice.choice(("layer1", "layer2", "layer3")))
    request = BatchRequest(
        model=model.name,
        layer=layer.name,
        units=sorted(dice.sample(range(layer.units), scale.bundle_units)),
        seed=seed * 1_000_000 + 500_000 + number,
        steps=max(1, round(scale.length * dice.randint(8, 200))),
    )
    return Bundle(number, dice.uniform(0, scale.spread_s), request)


def _question(
    dice: random.Random,
    seed: int,
    number: int,
    at_s: float,
    earlier: list[Question],
    model: ModelInfo,
    scale: Scale,
) -> Question:
    (kind,) = dice.choices(list(KINDS), list(KINDS.values()))
    callers = AT_THE_QUEUE if kind in ("canceled", "foreign") else AT_THE_QUEUE + OVER_HTTP
    caller = dice.choice(OVER_HTTP if kind in ("upload", "image") else callers)
    plain = [one for one in earlier[-20:] if one.kind == "plain" and one.caller != caller]
    if kind == "twin" and plain:
        return replace(dice.choice(plain), number=number, at_s=at_s, caller=caller, kind=kind)
    layer = model.layer(dice.choice(("layer1", "layer2", "layer3")))
    fields: dict[str, Any] = {"model": model.name, "layer": layer.name, "unit": dice.randrange(layer.units)}
    if kind in ("upload", "image"):
        settings = dice.choice(ATTRIBUTIONS)
        request = AttributionRequest.model_validate(fields | settings)
        return Question(number, caller, at_s, kind, request, picture=_picture(dice))
    steps = max(1, round(scale.length * _steps(dice, kind)))
    fields["seed"] = seed * 1_000_000 + number
    if kind == "chains":
        chains = {"chains": 2, "burn_in": steps, "thinning": 1 + steps // 4}
        fields |= {"sampler": "langevin", "images": 4, "langevin": chains}
    else:
        fields["steps"] = steps
    if kind == "batch":
        fields["priority"] = "batch"
    elif kind == "patient":
        fields["deadline_s"] = 10 * CLOCK_STEP_S
    elif kind == "hurried":
        fields["deadline_s"] = round(dice.uniform(0.2, 3.0), 3)
    elif kind == "outside":
        fields |= {"objective": "neuron", "position": tuple(side - 1 for side in layer.grid), "size_px": 16}
    wait_s = dice.uniform(0, 3) if kind == "canceled" else None
    return Question(number, caller, at_s, kind, VisualizationRequest.model_validate(fields), wait_s)


def _picture(dice: random.Random) -> bytes:
    """A PNG like no other, at the model's own size."""
    buffer = io.BytesIO()
    Image.frombytes("L", (32, 32), dice.randbytes(32 * 32)).save(buffer, "PNG")
    return buffer.getvalue()


def _steps(dice: random.Random, kind: Kind) -> int:
    """Mostly short, some of seconds, a few long enough for checkpoints."""
    if kind in ("canceled", "hurried"):
        return dice.randint(200, 1500)
    spans = ((8, 64), (200, 600), (2000, 4000))
    (span,) = dice.choices(spans, (65, 28, 0 if kind == "chains" else 7))
    return dice.randint(*span)


def _faults(dice: random.Random, scale: Scale, without: frozenset[FaultKind]) -> list[Fault]:
    weights = {kind: weight for kind, weight in FAULTS.items() if kind not in without}
    kinds: list[FaultKind] = list(weights)[: scale.faults]
    kinds += dice.choices(list(weights), list(weights.values()), k=scale.faults - len(kinds))
    dice.shuffle(kinds)
    times = sorted(dice.uniform(0.03 * scale.spread_s, 0.97 * scale.spread_s) for _ in kinds)
    faults = []
    for kind, at_s in zip(kinds, times, strict=True):
        least_s, most_s = LASTS_S[kind]
        lasts_s = dice.uniform(least_s, least_s + scale.stretch * (most_s - least_s))
        faults.append(Fault(kind, at_s, lasts_s, dice.random()))
    longest = kinds.index("Redis kill -9")
    if scale.spread_s > 10 * REDIS_AWAY_S:
        faults[longest] = replace(faults[longest], lasts_s=REDIS_AWAY_S)
    return faults

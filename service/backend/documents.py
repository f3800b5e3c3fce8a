"""Makes the documents of the protocol from jobs, batches, models and deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from proxygrad.protocol.addresses import BATCHES, DELIVERIES, MODELS, VISUALIZATIONS
from proxygrad.protocol.base import utc_time
from proxygrad.protocol.batches import Batch, BatchCounts, BatchLinks, BatchUnit, BatchUnitLinks, BatchUnits
from proxygrad.protocol.models import Layer, Model, ModelLinks
from proxygrad.protocol.webhooks import Delivery, DeliveryLinks
from proxygrad.spec import LayerInfo
from service.web.links import link
from service.webhooks.events import subject_path
from workers import webhooks
from workers.batches import repository as batches
from workers.fleet.catalog import ServedModel


def batch(record: batches.BatchRecord, *, brief: bool = False) -> Batch:
    """The document of a batch; ``brief``: without a long list of units."""
    path = link(f"{BATCHES}/{record.id}")
    return Batch(
        id=record.id,
        state=record.state,
        model=record.template.model,
        layer=record.template.layer,
        template=record.template,
        units=_units(record.units, brief=brief),
        counts=BatchCounts.model_validate({"waiting": record.waiting, **record.counts}),
        priority=record.priority,
        deadline_at=utc_time(record.deadline_at),
        created_at=utc_time(record.created_at),
        finished_at=utc_time(record.finished_at),
        problem=record.problem,
        links=BatchLinks(
            self=path,
            visualizations=f"{path}/visualizations",
            atlas=f"{path}/atlas",
            cancel=f"{path}/cancel",
        ),
    )


def _units(units: Sequence[int], *, brief: bool) -> BatchUnits:
    if isinstance(units, range):
        return BatchUnits(total=len(units), start=units.start, stop=units.stop, step=units.step, numbers=None)
    numbers = None if brief else list(units)
    return BatchUnits(total=len(units), start=None, stop=None, step=None, numbers=numbers)


def batch_unit(unit: batches.Unit) -> BatchUnit:
    """The document of one unit of a batch."""
    path = None if unit.job_id is None else link(f"{VISUALIZATIONS}/{unit.job_id}")
    image = f"{path}/images/{unit.best}" if unit.state == "succeeded" else None
    return BatchUnit(
        unit=unit.number,
        id=unit.job_id,
        state=unit.state,
        achieved_activation=unit.activation,
        problem=unit.problem,
        links=BatchUnitLinks(visualization=path, image=image),
    )


def layer(info: LayerInfo) -> Layer:
    """The document of one layer."""
    return Layer(**info.model_dump(), objectives=info.offered)


def model(served: ServedModel) -> Model:
    """The document of one model."""
    info, path = served.info, link(f"{MODELS}/{quote(served.name, safe='')}")
    return Model(
        name=served.name,
        ready=info is not None,
        problem=served.problem,
        input_shape=info.input_shape if info else None,
        classes=info.classes if info else None,
        digest=info.digest if info else None,
        engine_version=info.engine_version if info else None,
        discriminator=info.discriminator if info else None,
        notes=info.notes if info else (),
        layer_count=len(info.layers) if info else 0,
        links=ModelLinks(self=path, layers=f"{path}/layers"),
    )


def delivery(record: webhooks.DeliveryRecord) -> Delivery:
    """The document of one webhook delivery."""
    path = link(f"{DELIVERIES}/{record.id}")
    return Delivery(
        id=record.id,
        type=record.type,
        url=record.url,
        state=record.state,
        created_at=utc_time(record.created_at),
        attempts=record.attempts,
        last_attempt_at=utc_time(record.tried_at),
        last_status=record.status,
        last_error=record.error,
        next_attempt_at=utc_time(record.next_at),
        links=DeliveryLinks(self=path, subject=link(subject_path(record)), retry=f"{path}/retry"),
    )

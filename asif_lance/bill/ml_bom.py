"""A bill as CycloneDX ML-BOM, the form that inventories of software and of models are kept in.

`cyclonedx-python-lib` writes the components; it has no model cards yet, so those are added
to the JSON that it writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import version as installed_version
from typing import Any

from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion

from asif_lance.bill.content import Bill, SourceCount
from asif_lance.bill.licenses import find_spdx_id
from asif_lance.encoders import EncoderCard

_SCHEMA = SchemaVersion.V1_6
_SIDES = ("image", "text")
_TASK = "zero-shot image classification and cross-modal retrieval"
_NO_SOURCE = "no source stated"


def to_cyclonedx(bill: Bill) -> str:
    """The bill as CycloneDX 1.6 in JSON.

    The model is the subject; its parts are both encoders and the pairs, whose parts are a `data`
    component for each source under each licence. Counts are properties named `asif-lance:…`.
    """
    model = Component(
        name=bill.database or "pairs",
        version=bill.model,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        properties=_properties(_counts(bill)),
    )
    encoders = [_encoder(side, card) for side, card in zip(_SIDES, bill.encoders, strict=True)]
    # Nested, also because the library compares each of its outer components with all others.
    sources = Component(
        name="pairs",
        version=bill.model,
        type=ComponentType.DATA,
        bom_ref="pairs",
        components=[_source(number, one) for number, one in enumerate(bill.sources, 1)],
    )
    bom = Bom(components=[*encoders, sources])
    bom.metadata.timestamp = bill.bill_made_at
    bom.metadata.component = model
    bom.metadata.tools.components.add(
        Component(
            name="asif-lance",
            version=installed_version("asif-lance"),
            type=ComponentType.APPLICATION,
        )
    )
    bom.register_dependency(model, [*encoders, sources])
    written = json.loads(make_outputter(bom, OutputFormat.JSON, _SCHEMA).output_as_string())
    return json.dumps(_with_cards(written, bill), ensure_ascii=False, indent=2) + "\n"


def _encoder(side: str, card: EncoderCard) -> Component:
    return Component(
        name=card.name,
        version=card.revision or None,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"{side}-encoder",
        description=f"the frozen encoder of the {side} side",
        licenses=_licenses(card.license, find_spdx_id(card.license)),
        properties=_properties(
            [
                ("dimension", card.dimension),
                ("stated-by", card.stated_by or "not stated"),
                *([("remark", card.remark)] if card.remark else []),
            ]
        ),
    )


def _source(number: int, one: SourceCount) -> Component:
    return Component(
        name=one.source or _NO_SOURCE,
        type=ComponentType.DATA,
        bom_ref=f"source-{number}",
        licenses=_licenses(one.license, one.spdx),
        properties=_properties([("pairs", one.pairs), ("pictures", one.pictures)]),
    )


def _licenses(license: str, spdx: str) -> list[DisjunctiveLicense]:
    if spdx:
        return [DisjunctiveLicense(id=spdx)]
    return [DisjunctiveLicense(name=license)] if license else []


def _counts(bill: Bill) -> Iterable[tuple[str, object]]:
    yield "pairs", bill.pairs
    yield "rights-reserved", bill.reserved
    yield "model-made-at", bill.model_made_at.isoformat()
    yield "refused", sum(items for _, items in bill.refused)
    yield from ((f"refused:{reason}", items) for reason, items in bill.refused)
    yield "forgotten", sum(one.pairs for one in bill.forgotten)
    yield from ((f"forgotten:{one.receipt_id}", one.pairs) for one in bill.forgotten)
    yield from ((f"let-in:{one.waiver_id}:{one.allows}", one.pairs) for one in bill.let_in)
    if bill.since:
        since = bill.since
        for kind in ("added", "removed", "changed"):
            yield f"{kind}-since:{since.version}", getattr(since, kind)


def _properties(facts: Iterable[tuple[str, object]]) -> list[Property]:
    return [Property(name=f"asif-lance:{name}", value=str(value)) for name, value in facts]


def _with_cards(written: dict[str, Any], bill: Bill) -> dict[str, Any]:
    """The JSON of the components, with model cards."""
    model = written["metadata"]["component"]
    model["modelCard"] = _model_card(_TASK, [{"ref": "pairs"}])
    cards = dict(zip(_SIDES, bill.encoders, strict=True))
    for component in written["components"]:
        side = component["bom-ref"].removesuffix("-encoder")
        if side in cards:
            trained_on = [{"type": "dataset", "name": name} for name in cards[side].trained_on]
            component["modelCard"] = _model_card(f"{side} embedding", trained_on)
    return written


def _model_card(task: str, datasets: list[dict[str, str]]) -> dict[str, Any]:
    return {"modelParameters": {"task": task, "datasets": datasets}}

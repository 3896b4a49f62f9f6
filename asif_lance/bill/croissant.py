"""A bill as Croissant, the JSON-LD that describes data sets for machine learning.

Written by its context (version 1.0) rather than with `mlcroissant`, which brings pandas and rdflib,
90 MB, for a dictionary; the tests read the result with it.
"""

from __future__ import annotations

import json
from typing import Any

from asif_lance.bill.content import Bill

_SPDX = "https://spdx.org/licenses/"
_LANCE = "https://lance.org/format/"
_FILES = "pairs-files"

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

#: Columns of the table `pairs`, and what they hold.
_COLUMNS = {
    "pair_id": ("sc:Text", "the pair's name"),
    "caption": ("sc:Text", "the text side"),
    "image_uri": ("sc:Text", "where the picture is"),
    "image_sha256": ("sc:Text", "SHA-256 of the picture's bytes"),
    "source": ("sc:Text", "where the pair came from"),
    "license": ("sc:Text", "its licence, as it was given"),
    "attributes": ("sc:Text", "further metadata: a JSON object"),
    "image_vector": ("sc:Float", "the picture's embedding"),
    "text_vector": ("sc:Float", "the caption's embedding"),
}


def to_croissant(bill: Bill) -> str:
    """The bill as Croissant 1.0.

    Record sets: `pairs`, the columns of the table, and `sources` with the counts themselves. The
    licences of the whole are those of its sources: addresses of SPDX, or names.
    """
    described = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": bill.database or "pairs",
        "description": _describe(bill),
        "version": f"{bill.model.removeprefix('v')}.0.0",
        "datePublished": bill.model_made_at.isoformat(),
        "license": list(dict.fromkeys(_license(one.license, one.spdx) for one in bill.sources)),
        "distribution": [
            {
                "@type": "cr:FileSet",
                "@id": _FILES,
                "name": _FILES,
                "description": "the Lance table of the pairs",
                "encodingFormat": _LANCE,
                "includes": "pairs.lance/**",
            }
        ],
        "recordSet": [_pairs(), *([_sources(bill)] if bill.sources else [])],
    }
    if bill.refused:
        items = sum(count for _, count in bill.refused)
        described["rai:dataCollectionMissingData"] = f"{items:,} items refused: " + "; ".join(
            f"{reason} ({count:,})" for reason, count in bill.refused
        )
    return json.dumps(described, ensure_ascii=False, indent=2) + "\n"


def _describe(bill: Bill) -> str:
    image, text = (card.name for card in bill.encoders)
    return (
        f"{bill.pairs:,} image-text pairs, version {bill.model}, with embeddings of {image} and "
        f"{text}; {sum(one.pairs for one in bill.forgotten):,} pairs were forgotten on request"
    )


def _license(license: str, spdx: str) -> str:
    return f"{_SPDX}{spdx}" if spdx else license or "not stated"


def _pairs() -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"pairs/{name}",
            "name": name,
            "description": description,
            "dataType": kind,
            "source": {"fileSet": {"@id": _FILES}, "extract": {"column": name}},
            **({"repeated": True} if kind == "sc:Float" else {}),
        }
        for name, (kind, description) in _COLUMNS.items()
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "pairs",
        "name": "pairs",
        "key": {"@id": "pairs/pair_id"},
        "field": fields,
    }


def _sources(bill: Bill) -> dict[str, Any]:
    kinds = {"source": "sc:Text", "license": "sc:Text", "spdx": "sc:Text"} | {
        "pairs": "sc:Integer",
        "pictures": "sc:Integer",
    }
    fields = [
        {"@type": "cr:Field", "@id": f"sources/{name}", "name": name, "dataType": kind}
        for name, kind in kinds.items()
    ]
    data = [{f"sources/{name}": getattr(one, name) for name in kinds} for one in bill.sources]
    return {
        "@type": "cr:RecordSet",
        "@id": "sources",
        "name": "sources",
        "description": "pairs and different pictures of each source under each licence",
        "field": fields,
        "data": data,
    }

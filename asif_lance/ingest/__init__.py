"""Sources × encoders → store: every item becomes a pair or a rejection with its reason.

Promises: a bad item costs only itself and is reported; an interrupted ingest keeps all but its last
few hundred pairs, and running it again goes on where it stopped; memory grows by some 64 bytes a
pair, 80 more where pictures that look alike are sought, and by the ids and names of a COCO file's
images. A picture is read and encoded once, however its captions are scattered, also where an
earlier ingest had it; only beyond 262,144 files is one that comes again read again, to be hashed.
Assumes: sources stay as they are while they are read. Never changes a source, unpacks an archive or
fetches an address that a row names. A format is a module with a reader and a line in
`formats.FORMATS`.
"""

from asif_lance.ingest.attaching import Attached, attach
from asif_lance.ingest.caption_checks import is_uninformative
from asif_lance.ingest.caption_groups import name_pictures
from asif_lance.ingest.columns import CHOOSABLE, LABELLED_COLUMNS
from asif_lance.ingest.destination import Destination
from asif_lance.ingest.dry_run import ComingPair, DryRun, try_ingest
from asif_lance.ingest.encoder_naming import NamedEncoder, name_and_check_encoders
from asif_lance.ingest.expansion import expand_sources
from asif_lance.ingest.flags import RESERVED
from asif_lance.ingest.formats import FORMATS
from asif_lance.ingest.hygiene import ACTIONS, CHECKS, Finding
from asif_lance.ingest.hygiene_page import hygiene_page
from asif_lance.ingest.naming import SeenIds
from asif_lance.ingest.options import IngestOptions
from asif_lance.ingest.parquet_reader import read_column_classes
from asif_lance.ingest.parts import split_source
from asif_lance.ingest.pipeline import FORGOTTEN_ITEM, IngestReport, ingest_sources
from asif_lance.ingest.preparation import Preparation
from asif_lance.ingest.preview import read_pairs
from asif_lance.ingest.reencoding import (
    ReencodedVersion,
    ReencodeOptions,
    ReencodeReport,
    reencode,
)
from asif_lance.ingest.sources import (
    PictureList,
    Source,
    SourceParts,
    TableSource,
    read_source,
    sniff_format,
    source_name,
)
from asif_lance.ingest.totals import count_items
from asif_lance.ingest.vector_columns import as_matrix, unit_float16, valid_vectors

# fmt: off
__all__ = [
    "ACTIONS", "CHECKS", "CHOOSABLE", "FORGOTTEN_ITEM", "FORMATS", "LABELLED_COLUMNS", "RESERVED",
    "Attached", "ComingPair", "Destination", "DryRun", "Finding", "IngestOptions", "IngestReport",
    "NamedEncoder", "PictureList", "Preparation", "ReencodeOptions", "ReencodeReport",
    "ReencodedVersion", "SeenIds", "Source", "SourceParts", "TableSource", "as_matrix", "attach",
    "count_items", "expand_sources", "hygiene_page", "ingest_sources", "is_uninformative",
    "name_and_check_encoders", "name_pictures", "read_column_classes", "read_pairs", "read_source",
    "reencode", "sniff_format", "source_name", "split_source", "try_ingest", "unit_float16",
    "valid_vectors",
]
# fmt: on

"""What a model version is made of, to hand on: sources, licences, encoders, what is gone.

Promises: counts are of the version's own pairs; nothing of a caption or a picture is in a bill, and
names of sources and licences are data in every format. Reads the database and the encoders' files
that are here; writes nothing and asks no network.
"""

from asif_lance.bill.content import Bill, ChangesSince, Forgotten, SourceCount, make_bill
from asif_lance.bill.croissant import to_croissant
from asif_lance.bill.licenses import find_spdx_id
from asif_lance.bill.ml_bom import to_cyclonedx
from asif_lance.bill.page import bill_page

# fmt: off
__all__ = [
    "Bill", "ChangesSince", "Forgotten", "SourceCount", "bill_page", "find_spdx_id", "make_bill",
    "to_croissant", "to_cyclonedx",
]
# fmt: on

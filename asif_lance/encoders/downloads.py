"""Whether weights may be fetched from a model hub: an encoder's name alone is no consent to it.

`ASIF_LANCE_DOWNLOAD=1` gives it to a process and those that it starts; `--download` and
`allow_downloads` set that variable. What is on this machine already is used without asking anybody.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants

VARIABLE = "ASIF_LANCE_DOWNLOAD"

#: How consent is given, for messages.
HOW = "--download (ASIF_LANCE_DOWNLOAD=1, asif_lance.encoders.allow_downloads())"

_loading = threading.RLock()


def allow_downloads() -> None:
    """Let encoders that are not on this machine be fetched from their hub, in this process."""
    os.environ[VARIABLE] = "1"


def downloads_allowed() -> bool:
    """Whether somebody has allowed it."""
    return os.environ.get(VARIABLE, "").strip().lower() in {"1", "true", "yes", "on"}


@contextmanager
def only_allowed_requests() -> Iterator[None]:
    """Keep libraries that load a model's folder from fetching what the folder only names.

    One model is loaded at a time, since the libraries' setting is of the whole process.
    """
    with _loading:
        was_offline = constants.HF_HUB_OFFLINE
        constants.HF_HUB_OFFLINE = was_offline or not downloads_allowed()
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = was_offline

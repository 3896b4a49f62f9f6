"""One running service: the open models, what may change them, who may ask, and the figures."""

from __future__ import annotations

from asif_lance.service.changes import Changes
from asif_lance.service.metrics import Metrics
from asif_lance.service.operations import Operations
from asif_lance.service.rights import Guard
from asif_lance.service.settings import ServiceSettings


class Service:
    """What every request shares. Safe from threads."""

    def __init__(self, settings: ServiceSettings) -> None:
        """Open the database.

        Raises:
            DatabaseError: there is none, or it cannot be used.
        """
        self.settings, self.metrics = settings, Metrics()
        self.guard = Guard(settings.tokens, settings.rights)
        self.operations = Operations(settings, self.metrics.observe_search)
        self.changes = Changes(self.operations)
        self.metrics.watch_models(lambda: self.operations.models.count)

    def close(self) -> None:
        """Finish what was asked."""
        self.operations.searches.close()

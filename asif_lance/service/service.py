"""One running service: the open models, what may change them, who may ask, and the figures."""

from __future__ import annotations

from asif_lance.audit import report
from asif_lance.service.changes import PairChanges
from asif_lance.service.evaluations import Evaluations
from asif_lance.service.gallery import Gallery
from asif_lance.service.metrics import Metrics
from asif_lance.service.operations import Operations
from asif_lance.service.rights import Guard
from asif_lance.service.settings import ServiceSettings
from asif_lance.service.version_changes import VersionChanges
from asif_lance.service.views import Views


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
        self.changes = PairChanges(self.operations)
        self.version_changes = VersionChanges(self.operations)
        self.views = Views(self.operations, self.version_changes)
        self.gallery = Gallery(self.operations.models, self._find_wrong_drivers)
        self.evaluations = Evaluations(self.changes.query)
        for keeper in (self.version_changes, self.gallery, self.evaluations):
            self.changes.on_forget(keeper.forget)
        self.metrics.watch_models(lambda: self.operations.models.count)

    def _find_wrong_drivers(self, model: str) -> list[str]:
        found = self.changes.query(report("wrong-drivers").sql, model)
        return [str(pair_id) for pair_id in found["pair_id"].to_pylist()]

    def close(self) -> None:
        """Finish what was asked."""
        self.changes.close()
        self.operations.searches.close()

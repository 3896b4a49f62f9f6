"""Questions carried to actors of Ray: each holds some shards of what is searched, and encodes.

An actor that dies, or whose machine goes, is started again by Ray, elsewhere if need be, opens its
shards anew and is asked once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from asif_lance.cluster.ray_cluster import (
    ATTEMPTS,
    describe_loss,
    import_ray,
    size_workers,
    start_ray,
)
from asif_lance.errors import AsifError, ShardsFailedError
from asif_lance.model import Model, share_model
from asif_lance.records import BROUGHT


@dataclass(frozen=True, slots=True)
class SearchActors:
    """Actors that answer questions about shards; itself a mapper, which other actors may have.

    Attributes:
        ray: the module.
        actors: their handles.
    """

    ray: Any
    actors: Sequence[Any]

    @staticmethod
    def start(
        workers: int | None = None, *, cpus: float = 1, gpus: float | None = None
    ) -> SearchActors:
        """Ask Ray for actors, which start when they are first needed.

        Args:
            workers: how many; as many as there is room for when None.
            cpus: of each.
            gpus: of each, for encoders; by default one where the cluster has any.

        Raises:
            InputError: Ray is not installed.
        """
        ray = import_ray()
        start_ray(ray)
        count, gpus = size_workers(ray, workers, cpus, gpus)
        how = {"max_restarts": -1, "max_task_retries": ATTEMPTS - 1, "num_gpus": gpus}
        actor = ray.remote(num_cpus=cpus, scheduling_strategy="SPREAD", **how)(_Searcher)
        return SearchActors(ray, [actor.remote() for _ in range(count)])

    @staticmethod
    def start_for(
        model: Model, workers: int | None = None, *, cpus: float = 1, gpus: float | None = None
    ) -> SearchActors:
        """The same, by default without GPUs where nothing can be encoded: vectors were brought."""
        if gpus is None and model.store.image.name == BROUGHT:
            gpus = 0
        return SearchActors.start(workers, cpus=cpus, gpus=gpus)

    def __enter__(self) -> SearchActors:
        """Itself; leaving ends the actors."""
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self.actors:
            self.ray.kill(actor)

    def map(self, function: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
        """The function of each value, in order; the i-th is always computed by the same actor.

        Raises:
            ShardsFailedError: an actor was lost each time that it was asked.
            AsifError: whatever the function raises.
        """
        count = len(self.actors)
        asked = [
            self.actors[place % count].answer.remote(function, value)
            for place, value in enumerate(values)
        ]
        return [self._take(place, answer) for place, answer in enumerate(asked)]

    def _take(self, place: int, answer: Any) -> Any:
        try:
            found = self.ray.get(answer)
        except self.ray.exceptions.RayActorError as error:
            raise ShardsFailedError((place,), describe_loss(error)) from error
        if isinstance(found, AsifError):
            raise found
        return found

    def share(self, model: Model, shards: int | None = None) -> Model:
        """The model, for which these actors encode and search; see `share_model`.

        Args:
            model: an opened version.
            shards: into how many it is cut; one for each actor when None. An actor holds eight.
        """
        return share_model(model, self.map, shards or len(self.actors))


@contextmanager
def share_with_ray(
    model: Model,
    *,
    workers: int | None = None,
    shards: int | None = None,
    cpus: float = 1,
    gpus: float | None = None,
) -> Iterator[Model]:
    """The same version, for which actors of Ray encode pictures and compare pairs in the block.

    Args:
        model: an opened version.
        workers: how many actors; as many as there is room for when None.
        shards: see `SearchActors.share`.
        cpus: of each actor.
        gpus: of each actor; by default one where the cluster has any and pictures are encoded.

    Raises:
        InputError: Ray is not installed, or the pairs are those of a table that is not ours.
    """
    with SearchActors.start_for(model, workers, cpus=cpus, gpus=gpus) as actors:
        yield actors.share(model, shards)


class _Searcher:
    """A process that answers; what a function raises is an answer, too."""

    def answer(self, function: Callable[[Any], Any], value: Any) -> Any:
        try:
            return function(value)
        except AsifError as error:
            return error

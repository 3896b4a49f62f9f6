"""Model versions kept open and shared by all requests; new ones are opened when they are asked for.

A version's name is looked up for every request, so `latest` is the newest at that moment. What a
forget made stale is opened anew before it answers.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from asif_lance.errors import StaleModelError
from asif_lance.evaluation import Calibration, calibrate_by_self_test
from asif_lance.evaluation.self_test import LEAST_PAIRS
from asif_lance.model import LabelSet, Model, Prompts, bind_version, open_model
from asif_lance.records import BROUGHT, ModelVersion
from asif_lance.service.question import Asked, ChosenRecipe
from asif_lance.store import PairStore

Result = TypeVar("Result")

_MODELS, _LABEL_SETS = 8, 8  # kept; the ones not asked for longest go first
_NAMES = 1000  # of versions whose records are kept

# How long, and how often, an answer is tried that a forget makes stale: files go one after
# another, and what is opened in the midst of that is soon stale, too.
_STALE_SECONDS, _STALE_PAUSE = 10.0, 0.02


class OpenModel:
    """One version under one recipe, with the label sets asked for last. Safe from threads."""

    def __init__(self, model: Model) -> None:
        """Begin without label sets."""
        self.model = model
        self._labels: OrderedDict[Asked, LabelSet] = OrderedDict()
        self._calibrations: OrderedDict[Asked, Calibration | None] = OrderedDict()
        self._lock, self._calibrating = threading.Lock(), threading.Lock()

    def prompts(self, asked: Asked) -> Prompts:
        """The prompts that a question asks with."""
        return self.labels(asked).prompts

    def labels(self, asked: Asked) -> LabelSet:
        """The label set that a question asks with, compiled once."""
        with self._lock:
            found = self._labels.get(asked)
            if found is None:
                while len(self._labels) >= _LABEL_SETS:
                    self._labels.popitem(last=False)
                found = self._labels[asked] = self.model.compile(asked.embed(self.model))
            self._labels.move_to_end(asked)
            return found

    def calibration(self, asked: Asked) -> Calibration | None:
        """What the pairs' own pictures say of scores for these labels; None if they are too few."""
        labels = self.labels(asked)
        with self._calibrating:
            if asked not in self._calibrations:
                while len(self._calibrations) >= _LABEL_SETS:
                    self._calibrations.popitem(last=False)
                enough = self.model.anchors.count >= LEAST_PAIRS and len(labels.names) > 1
                self._calibrations[asked] = (
                    calibrate_by_self_test(self.model, labels) if enough else None
                )
            self._calibrations.move_to_end(asked)
            return self._calibrations[asked]


class OpenModels:
    """The models of one database. Safe from threads."""

    def __init__(self, uri: str, device: str = "auto") -> None:
        """Open the database.

        Raises:
            DatabaseError: there is none, or it cannot be used.
        """
        self.store = PairStore.open(uri)
        self._device = device
        self._root = open_model(uri, device=device)
        self._open: OrderedDict[tuple[ModelVersion, ChosenRecipe], OpenModel] = OrderedDict()
        self._versions: dict[str, ModelVersion] = {}
        self._state: object = None
        self._lock = threading.Lock()
        self._generation, self._running = 0, Counter[int]()
        self._ended = threading.Condition(self._lock)

    def load_encoders(self) -> None:
        """Load what turns pictures and texts into vectors, where it is known: takes seconds."""
        if self.store.image.name != BROUGHT:
            _ = self._root.image_encoder
        if self.store.text.name != BROUGHT:
            _ = self._root.text_encoder

    @property
    def encoding(self) -> Model:
        """A model that turns pictures into vectors; its version does not matter."""
        return self._root

    @property
    def count(self) -> int:
        """How many models are open."""
        return len(self._open)

    def answer(self, name: str, how: ChosenRecipe, ask: Callable[[OpenModel], Result]) -> Result:
        """What a version says, opened anew while forgets make it stale.

        Raises:
            VersionNotFoundError: there is no such version.
            StaleModelError: it was stale for too long.
        """

        def ask_newest() -> Result:
            opened = self._get(name, how)
            try:
                return ask(opened)
            except StaleModelError:
                self._drop(opened)
                raise

        return self.try_again(ask_newest)

    def try_again(self, ask: Callable[[], Result]) -> Result:
        """The same of what itself asks for a model that is open.

        Raises:
            StaleModelError: it was stale for too long.
        """
        until = time.monotonic() + _STALE_SECONDS
        with self._answering():
            while True:
                try:
                    return ask()
                except StaleModelError:
                    if time.monotonic() > until:
                        raise
                time.sleep(_STALE_PAUSE)

    def close_all(self) -> None:
        """Keep none open, and wait for the answers that were begun with what was open."""
        with self._lock:
            self._open.clear()
            self._generation += 1
            self._ended.wait_for(self._no_earlier_answers)

    def _no_earlier_answers(self) -> bool:
        return all(not n for at, n in self._running.items() if at < self._generation)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        with self._lock:
            begun = self._generation
            self._running[begun] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[begun] -= 1
                self._ended.notify_all()

    def _get(self, name: str, how: ChosenRecipe) -> OpenModel:
        version = self._find_version(name)
        with self._lock:
            found = self._open.get((version, how))
            if found is None:
                while len(self._open) >= _MODELS:
                    self._open.popitem(last=False)
                found = self._open[version, how] = OpenModel(self._open_model(version, how))
            self._open.move_to_end((version, how))
            return found

    def _find_version(self, name: str) -> ModelVersion:
        """The version of a name now; looked up anew only when versions may have changed."""
        state = self.store.versions_state()
        with self._lock:
            if state is None or state != self._state:
                self._state, self._versions = state, {}
            found = self._versions.get(name)
        if found is None:
            found = self.store.version(name)
            with self._lock:
                if state == self._state and len(self._versions) < _NAMES:
                    self._versions[name] = found
        return found

    def _open_model(self, version: ModelVersion, how: ChosenRecipe) -> Model:
        model = bind_version(self.store, version, how.recipe, how.k, how.p, device=self._device)
        if self.store.image.name != BROUGHT:
            model.image_encoder = self._root.image_encoder
        if self.store.text.name != BROUGHT:
            model.text_encoder = self._root.text_encoder
        return model

    def _drop(self, stale: OpenModel) -> None:
        with self._lock:
            for key in [key for key, opened in self._open.items() if opened is stale]:
                del self._open[key]

"""Figures for Prometheus: requests by route, how long they took, how searches were shared."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SHARED = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The figures of one service. Safe from threads."""

    def __init__(self) -> None:
        """Begin at zero."""
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "asif_lance_requests",
            "Requests that were answered.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "asif_lance_request_seconds",
            "How long answers took.",
            ["route"],
            registry=self._registry,
        )
        self._searches = Histogram(
            "asif_lance_search_requests",
            "Requests that one search answered.",
            buckets=_SHARED,
            registry=self._registry,
        )

    def watch_models(self, count: Callable[[], int]) -> None:
        """Show how many models are open."""
        gauge = Gauge("asif_lance_open_models", "Models that are open.", registry=self._registry)
        gauge.set_function(count)

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def observe_search(self, requests: int) -> None:
        """Count one search."""
        self._searches.observe(requests)

    def text(self) -> bytes:
        """All figures as Prometheus reads them."""
        return generate_latest(self._registry)

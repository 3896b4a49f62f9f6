"""Which tests are slow: those that `tests/slow_tests.txt` names, as a run has measured them.

`make slow-tests` writes the list anew from a whole run, so that nobody marks tests by hand.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

LIST = Path(__file__).with_suffix(".txt")
SLOW_SECONDS = 0.25  # slower ones are half of the tests and nine tenths of the time


def function_of(nodeid: str) -> str:
    """A test's name without its parameters, which may hold anything."""
    return nodeid.split("[")[0]


class SlowTestList:
    """Adds up what each test takes, for its slowest parameters, and writes down the slow ones."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        ran = {function_of(nodeid) for nodeid in self.seconds}
        slow = {function_of(id_) for id_, taken in self.seconds.items() if taken >= SLOW_SECONDS}
        kept = set(LIST.read_text().split()) - ran if LIST.exists() else set()
        LIST.write_text("".join(f"{name}\n" for name in sorted(slow | kept)))


def mark_slow_tests(items: list[pytest.Item]) -> None:
    """Give the listed tests the marker `slow`."""
    listed = set(LIST.read_text().split())
    for item in items:
        if function_of(item.nodeid) in listed:
            item.add_marker("slow")

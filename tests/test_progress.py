"""How far long work is: steps that tell, and the lines and bars of the command line."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from asif_lance.cli import progress as shown
from conftest import Cli
from hypothesis import given
from hypothesis import strategies as st

from asif_lance.progress import listen, note, show_progress, step, track, track_batches

Told = tuple[str, int, int | None]


@pytest.fixture
def told() -> list[Told]:
    return []


def gather(told: list[Told]) -> Callable[[str, int, int | None], None]:
    return lambda what, done, total: told.append((what, done, total))


def test_a_step_tells_that_it_begins_how_far_it_is_and_that_it_is_over(told: list[Told]) -> None:
    with listen(gather(told)), step("work", 5) as advance:
        advance(2)
        advance(3)
    assert told == [("work", 0, 5), ("work", 2, 5), ("work", 5, 5)]


def test_a_step_of_unknown_length_is_over_when_it_is_left(told: list[Told]) -> None:
    with listen(gather(told)), step("work") as advance:
        advance(2)
    assert told == [("work", 0, None), ("work", 2, None), ("work", 2, 2)]


def test_a_step_that_fails_is_over_too(told: list[Told]) -> None:
    with pytest.raises(KeyError), listen(gather(told)), step("work", 5):
        raise KeyError
    assert told[-1] == ("work", 0, 0)


def test_items_that_know_their_number_need_not_be_told_it(told: list[Told]) -> None:
    with listen(gather(told)):
        assert list(track("work", ["a", "b"])) == ["a", "b"]
        assert list(track("some", iter("ab"), 3)) == ["a", "b"]
        assert list(track("any", (c for c in "ab"))) == ["a", "b"]
    assert [t for t in told if t[1] == 0] == [("work", 0, 2), ("some", 0, 3), ("any", 0, None)]


def test_nobody_hears_of_what_begins_elsewhere(told: list[Told]) -> None:
    with listen(gather(told)):
        pass
    list(track("work", "ab"))
    assert told == []


def test_a_program_may_show_bars_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress(after=0):
        for item in track("count letters", "abc"):
            note(f"letter {item}")
        with pytest.raises(KeyError), step("fail", 5):
            raise KeyError
    told = capsys.readouterr()
    assert told.out == ""
    assert "count letters" in told.err
    assert "0/3" in told.err
    assert "letter b" in told.err
    with show_progress():
        list(track("quick", "abc"))
    assert "quick" not in capsys.readouterr().err


@given(count=st.integers(0, 50), size=st.integers(1, 60))
def test_batches_cover_every_item_once_and_in_order(count: int, size: int) -> None:
    items = list(range(count))
    batches = [items[at] for at in track_batches("work", count, size)]
    assert [i for batch in batches for i in batch] == items
    assert all(0 < len(batch) <= size for batch in batches)


# The command line


@pytest.fixture
def command() -> click.Context:
    """A context as `main` has it."""
    context = click.Context(click.Command("test"))
    context.meta[shown._QUIET] = False
    return context


class Terminal(io.StringIO):
    """A stderr or stdout that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_elsewhere_than_in_a_terminal_the_outermost_step_writes_lines(
    command: click.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    written = threading.Event()

    def note(line: str) -> None:
        lines.append(line)
        written.set()

    monkeypatch.setattr(shown, "LINE_SECONDS", 0.01)
    monkeypatch.setattr(shown, "note", note)
    with shown.shown_progress(command), step("all", 4) as advance:
        advance(1)
        with step("part", 9):
            written.clear()
            assert written.wait(60)
    assert lines[-1].startswith("all: 1 of 4, ")
    assert lines[-1].endswith(" left")
    assert not any(line.startswith("part") for line in lines)


def test_a_terminal_shows_each_long_step_and_none_when_it_is_over(
    command: click.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr(shown, "BAR_SECONDS", 0.0)
    with command.scope(cleanup=False), shown.shown_progress(command), step("all", 4) as advance:
        advance(1)
        with step("part"):
            shown.hide_bars()  # draws a last time
            before = terminal.getvalue()
            assert "all: 1 of 4, " in before
            assert "part: 0 s so far" in before
    assert "part" not in terminal.getvalue()[len(before) :]


def test_work_of_a_moment_shows_nothing(
    command: click.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with shown.shown_progress(command), step("all", 4):
        pass
    assert "all" not in terminal.getvalue()


@pytest.mark.parametrize("place", [0, 5])
def test_quiet_may_stand_before_the_command_or_after_it(
    cli: Cli, pairs_file: Path, query_file: Path, label_file: Path, place: int, monkeypatch: Any
) -> None:
    shows: list[object] = []
    monkeypatch.setattr(shown, "_Lines", lambda steps: shows.append(steps) or Shown())
    cli("--db", "t.lancedb", "ingest", pairs_file)
    asked = ["--vectors", query_file, "--label-vectors", label_file, "--format", "json"]
    arguments = ["--db", "t.lancedb", "classify", *asked]
    loud = cli(*arguments)
    assert shows
    shows.clear()
    quiet = cli(*arguments[:place], "--quiet", *arguments[place:])
    assert not shows
    assert quiet.out == loud.out
    assert len([json.loads(line) for line in quiet.out.splitlines()]) == 20


class Shown:
    """Lines that nobody writes."""

    def stop(self) -> None:
        pass


def test_every_command_has_quiet(cli: Cli) -> None:
    from conftest import entry_point

    def leaves(command: Any) -> list[Any]:
        below = getattr(command, "commands", {}).values()
        return [command, *(leaf for each in below for leaf in leaves(each))]

    for command in leaves(entry_point()):
        assert "--quiet" in [o for p in command.params for o in p.opts], command.name

"""Files of class names: what each way of writing them means, and what is told of the others."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
from conftest import Cli
from hypothesis import given, settings
from hypothesis import strategies as st

from asif_lance.errors import InputError
from asif_lance.model.class_files import describe_class_names, read_class_names, split_labels
from asif_lance.model.labels import fill_templates


def read(tmp_path: Path, content: str | bytes) -> dict[str, tuple[str, ...]]:
    file = tmp_path / "classes.txt"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_class_names(file)


def alone(*labels: str) -> dict[str, tuple[str, ...]]:
    return {label: (label,) for label in labels}


def test_each_name_of_a_class_makes_prompts_of_its_own(tmp_path: Path) -> None:
    names = read(tmp_path, "bird\nvehicle: car, fire truck\n")
    assert names == {"bird": ("bird",), "vehicle": ("car", "fire truck")}
    texts, owner = fill_templates(names, ["a {}.", "{}!"])
    assert texts == ["a bird.", "bird!", "a car.", "car!", "a fire truck.", "fire truck!"]
    assert owner.tolist() == [0, 0, 1, 1, 1, 1]


VEHICLE = {"vehicle": ("car", "ship", "fire truck")}
TITLE = "Star Wars: A New Hope"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        # A list with commas after a colon and a blank; in a file of its own or beside others.
        ("vehicle: car, ship, fire truck", VEHICLE),
        ("bird\nfruit\nvehicle: car, ship, fire truck\nfish\n", None),
        ("vehicle:\tcar,\tship,fire truck,\n", VEHICLE),
        ("vehicle : car , ship , fire truck", VEHICLE),
        ("vehicle: car,\nbird\n", {"vehicle": ("car",), "bird": ("bird",)}),
        # Any other colon is part of the label.
        (f"{TITLE}\nbird", alone(TITLE, "bird")),
        (f"{TITLE}\nAlien: Covenant\n", alone(TITLE, "Alien: Covenant")),
        (f"{TITLE}\nvehicle: car, ship, fire truck", alone(TITLE) | VEHICLE),
        (
            "12:30\nhttp://x\n2001: A Space Odyssey",
            alone("12:30", "http://x", "2001: A Space Odyssey"),
        ),
        ("Film\\: Rome, Paris\nbird", alone("Film: Rome, Paris", "bird")),
        ("tench, Tinca tinca\nbird", alone("tench, Tinca tinca", "bird")),
        # Numbered classes.
        ("0: bird\n1: fruit", {"0": ("bird",), "1": ("fruit",)}),
        ("0: bird\n\n1: car, ship\n", {"0": ("bird",), "1": ("car", "ship")}),
        # Lists, comments, quotes.
        ("- cat\n- dog\n", alone("cat", "dog")),
        ("---\n  - cat\n\n  - vehicle: car, ship, fire truck", alone("cat") | VEHICLE),
        ("* cat\n* dog\n", alone("cat", "dog")),
        ("# animals\ncat\n  ## more\n#\ndog # domestic\n", alone("cat", "dog # domestic")),
        ("\\#1\n\\- x\nC#\n-40 degrees", alone("#1", "- x", "C#", "-40 degrees")),
        ("\"fire truck\"\n'cat'\n", alone("fire truck", "cat")),
        (f'"{TITLE}"\n"a, b"\n', alone(TITLE, "a, b")),
        (
            '"Film: Rome, Paris"\n"a: b": "c, d", \'e\'',
            alone("Film: Rome, Paris") | {"a: b": ("c, d", "e")},
        ),
        ("'til death\n\"Weird Al\" Yankovic\nrock 'n' roll", None),
        ("a: b\\, c, d\nAC\\DC\nx\\", {"a": ("b, c", "d")} | alone("AC\\DC", "x\\")),
        # How it was saved makes no difference.
        ("\ufeff# BOM\r\ncat\r\n\r\n  dog\t\r\n", alone("cat", "dog")),
        ("cat\rdog\r", alone("cat", "dog")),
        ("naïve\n日本語: 車, 船", alone("naïve") | {"日本語": ("車", "船")}),
        # JSON.
        ('["bird", "fruit"]', alone("bird", "fruit")),
        (f'\n["{TITLE}", "a, b"]', alone(TITLE, "a, b")),
        (
            '{"bird": ["a bird", "an owl"], "0": "fruit"}',
            {"bird": ("a bird", "an owl"), "0": ("fruit",)},
        ),
    ],
)
def test_each_way_of_writing_has_one_meaning(
    tmp_path: Path, text: str, names: dict[str, tuple[str, ...]] | None
) -> None:
    found = read(tmp_path, text)
    if names is not None:
        assert found == names
    elif "vehicle" in found:
        assert found == alone("bird", "fruit") | VEHICLE | alone("fish")
    else:
        assert found == alone(*text.splitlines())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a\n\na\n", "line 3: label 'a' is given twice"),
        ("a: b, c\na", "line 2: label 'a' is given twice"),
        ("a: b,,c", "line 1: label 'a' has an empty name after the colon"),
        ("a: ,", "line 1: label 'a' has an empty name after the colon"),
        ("a: b, b", "line 1: label 'a' has a name twice"),
        ("x\n: b, c", "line 2: there is no label before the colon"),
        ("x\nvehicle:\n  - car\n  - ship", "line 1: 'x' has no dash before it"),
        ("vehicle:\ncar", "line 1: 'vehicle:' has no name after its colon"),
        ("- cat\ndog", "line 2: 'dog' has no dash before it, as other lines have"),
        ("vehicle: [car, ship]", "line 1: .*: write names without brackets"),
        ("cat\n#dog", r"line 2: '#dog' is not clear: '# …' is a comment, '\\#…' a label"),
        ("bird\tan owl", "line 1: .* has a control character or a tab inside"),
        ("cat\nd\0og", "line 2: .* has a control character"),
        ('cat\n"dog', "line 2: .* has a quote that is not closed"),
        ('cat: "a, b', "line 1: .* has a quote that is not closed"),
        ("cat,dog,bird\n", "line 1: 'cat,dog,bird' is one label: write a label per line"),
        ("", "has no labels: give at least one"),
        ("# birds\n\n", "has no labels: give at least one"),
        ("{}", "has no labels: give at least one"),
        ("[" * 100_000, "its JSON is nested too deeply for labels"),
        ('["bird", 1]', "1 is no label"),
        ('["bird", "bird"]', "'bird' is given twice"),
        ('{"a": "x", "a": "y"}', "'a' is given twice"),
        ('{"a": []}', "'a' has an empty name"),
        ('{"a": {}}', "'a' is no label with a name"),
        ('{"bird": 0}', "'bird' is no label with a name"),
        ('["bird",\n', "begins like JSON but is not: .* line 2"),
        ("cat\ndog".encode("utf-16"), "is not UTF-8 text but UTF-16: save it as UTF-8"),
        ("cat\ncaf\xe9".encode("latin-1"), r"is not UTF-8 text \(line 2\): save it as UTF-8"),
    ],
)
def test_what_is_not_understood_is_told_with_its_line(
    tmp_path: Path, text: str | bytes, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        read(tmp_path, text)


@settings(deadline=None)  # it writes files
@given(st.lists(st.text("ab:,\\\"'# -\t[]", min_size=1, max_size=9), min_size=1, max_size=4))
def test_any_lines_are_labels_or_one_line_of_reason(lines: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(InputError):
        found = read(Path(folder), "\n".join(lines))
        assert len(found) <= len(lines)
        assert all(label.strip() and all(names) for label, names in found.items())


LABEL = st.text('ab:,"# -[', min_size=1).filter(lambda text: text == text.strip())


@settings(deadline=None)  # it writes files
@given(st.lists(LABEL, min_size=2, unique=True))
def test_every_label_can_be_written_with_backslashes(labels: list[str]) -> None:
    written = ["".join("\\" + c if c in ':,"#-[' else c for c in label) for label in labels]
    with tempfile.TemporaryDirectory() as folder:
        assert read(Path(folder), "\n".join(written)) == alone(*labels)


def test_what_was_understood_of_a_class_file_is_one_line() -> None:
    assert describe_class_names(alone("bird")) is None
    assert describe_class_names({"bird": ("bird",), "vehicle": ("car", "fire truck")}) == (
        "2 labels, 1 under other names: 'vehicle' is car, fire truck"
    )
    assert describe_class_names(alone(TITLE, "bird") | VEHICLE) == (
        "3 labels, 1 under other names: 'vehicle' is car, ship, fire truck; "
        "1 with a colon of their own: 'Star Wars: A New Hope'"
    )


def test_a_long_line_is_read_at_once(tmp_path: Path) -> None:
    lines = "x" + " " * 100_000 + ": a" + ", b c" * 20_000
    with pytest.raises(InputError, match="has a name twice"):
        read(tmp_path, lines)


def test_the_help_says_how_a_class_has_several_names(cli: Cli) -> None:
    told = " ".join(cli("classify", "--help").out.split())
    assert "'vehicle: car, ship'" in told
    assert "'\\:'" in told


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("bird, cat", ["bird", "cat"]),
        ('"oak, old", elm', ["oak, old", "elm"]),
        ('" oak "" x ",elm', ['oak " x', "elm"]),
        ('6" nail,a "b" c', ['6" nail', 'a "b" c']),
        ("bird,,cat,", ["bird", "", "cat", ""]),
        ("oak, old\nelm\r\n", ["oak, old", "elm"]),
        ("", []),
    ],
)
def test_labels_in_one_text_are_a_row_of_csv_or_lines(text: str, labels: list[str]) -> None:
    assert split_labels(text) == labels


@pytest.mark.parametrize("text", ['"oak, old', '"oak" tree,elm'])
def test_a_quote_that_is_not_closed_is_told(text: str) -> None:
    with pytest.raises(InputError, match=r"^labels '"):
        split_labels(text)

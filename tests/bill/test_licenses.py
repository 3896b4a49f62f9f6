"""Licences as people write them become SPDX identifiers only where that is certain."""

from __future__ import annotations

import time

import pytest
from cyclonedx.spdx import is_supported_id
from hypothesis import given
from hypothesis import strategies as st

from asif_lance.bill import find_spdx_id

CERTAIN = {
    "CC-BY-4.0": (
        "cc-by-4.0",
        "CC BY 4.0",
        "CC_BY 4.0",
        "https://creativecommons.org/licenses/by/4.0/",
        "http://www.creativecommons.org/licenses/by/4.0/deed.en",
        "Creative Commons Attribution 4.0 International",
    ),
    "CC-BY-NC-SA-2.0": (
        "CC BY-NC-SA 2.0",
        "https://creativecommons.org/licenses/by-nc-sa/2.0/legalcode",
        "Creative Commons Attribution-NonCommercial-ShareAlike 2.0 Generic",
    ),
    "CC-BY-3.0-DE": ("https://creativecommons.org/licenses/by/3.0/de/",),
    "CC0-1.0": (
        "CC0 1.0 Universal",
        "Creative Commons Zero v1.0 Universal",
        "https://creativecommons.org/publicdomain/zero/1.0/",
    ),
    "MIT": ("mit", "MIT License", "https://opensource.org/licenses/MIT"),
    "Apache-2.0": (
        "Apache License, Version 2.0",
        "Apache Software License 2.0",
        "http://www.apache.org/licenses/LICENSE-2.0",
    ),
    "GPL-3.0-or-later": ("https://spdx.org/licenses/GPL-3.0-or-later.html",),
}
UNCERTAIN = (
    *("", " ", "CC BY", "GPL", "GPL-2", "Apache 2", "public domain", "unknown", "attribution"),
    "https://evil.example/?creativecommons.org/licenses/by/4.0/",
    "https://creativecommons.org.evil.example/licenses/by/4.0/",
    "https://creativecommons.org/licenses/by/9.9/",
    "MIT<script>alert(1)</script>",
)


@pytest.mark.parametrize(("spdx", "spellings"), CERTAIN.items())
def test_spellings_of_a_licence_are_one(spdx: str, spellings: tuple[str, ...]) -> None:
    assert {find_spdx_id(text) for text in spellings} == {spdx}


@pytest.mark.parametrize("text", UNCERTAIN)
def test_what_could_be_several_licences_stays_a_name(text: str) -> None:
    assert find_spdx_id(text) == ""


@given(st.text())
def test_any_text_gives_an_identifier_of_the_list_or_none(text: str) -> None:
    found = find_spdx_id(text)
    assert not found or is_supported_id(found)


def test_a_licence_that_is_a_book_is_told_at_once() -> None:
    start = time.perf_counter()
    assert find_spdx_id("https://creativecommons.org/licenses/" + "by-" * 1_000_000) == ""
    assert time.perf_counter() - start < 1

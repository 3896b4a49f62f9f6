"""Licences as people write them, as SPDX identifiers where the meaning is certain.

Only spelling is forgiven: case, blanks, words such as "License", addresses of licences, and what
Creative Commons calls its own. What lacks a version ("CC BY", "GPL") could be several and stays a
name.
"""

from __future__ import annotations

import re

from cyclonedx.spdx import fixup_id

# Addresses of licences, and how the identifier is made of their parts; then the pages below them.
_ADDRESSES = {
    r"creativecommons\.org/licenses/([a-z-]+)/(\d\.\d)(?:/([a-z]{2,3}))?": "CC-{}-{}-{}",
    r"creativecommons\.org/publicdomain/zero/(\d\.\d)": "CC0-{}",
    r"creativecommons\.org/publicdomain/mark/(\d\.\d)": "CC-PDM-{}",
    r"spdx\.org/licenses/([a-z0-9.+-]+?)(?:\.html|\.json)?": "{}",
    r"opensource\.org/licen[sc]es?/([a-z0-9.+-]+?)(?:\.php)?": "{}",
    r"apache\.org/licenses/license-(\d\.\d)(?:\.txt|\.html)?": "Apache-{}",
}
_PAGE = r"/?(?:(?:deed|legalcode)(?:\.[a-z_-]+)?)?/?(?:[?#].*)?"

_SAY_NOTHING = frozenset({"", "the", "license", "licence", "version", "software"})
_CREATIVE_COMMONS = {
    **{"attribution": "by", "noncommercial": "nc", "noderivatives": "nd", "noderivs": "nd"},
    **{"sharealike": "sa", "international": "", "unported": "", "generic": "", "universal": ""},
}
_LONGEST = 200


def find_spdx_id(license: str) -> str:
    """The SPDX identifier of a licence, or an empty text where it is not certain."""
    text = license.strip().lower()
    if len(text) > _LONGEST:
        return ""
    if text.startswith(("http://", "https://", "www.")) or "://" in text:
        return _from_address(re.sub(r"^[a-z]+://", "", text).removeprefix("www."))
    return fixup_id(text) or fixup_id(_respell(text)) or ""


def _from_address(address: str) -> str:
    for pattern, spelling in _ADDRESSES.items():
        if found := re.fullmatch(pattern + _PAGE, address):
            return fixup_id(spelling.format(*found.groups("")).rstrip("-")) or ""
    return ""


def _respell(text: str) -> str:
    """Words joined as in SPDX identifiers."""
    text = re.sub(r"\bv(?:ersion\s*)?(?=\d)", "", text)
    text = re.sub(r"\bcreative commons\b", "cc", text)
    text = re.sub(r"\b(non|no|share)-(?=commercial|deriv|alike)", r"\1", text)
    words = [word for word in re.split(r"[\s,_/()-]+", text) if word not in _SAY_NOTHING]
    if words and words[0] in ("cc", "cc0"):
        words = [found for word in words if (found := _CREATIVE_COMMONS.get(word, word))]
    return "-".join(words).replace("cc-zero-", "cc0-")

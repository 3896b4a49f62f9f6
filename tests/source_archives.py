"""Archives and other sources of many files, written for a test."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def picture(colour: str = "red", format: str = "PNG") -> bytes:
    """A small picture."""
    stream = io.BytesIO()
    Image.new("RGB", (32, 24), colour).save(stream, format)
    return stream.getvalue()


def noise(seed: int) -> bytes:
    """A JPEG that no other seed's is like."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((64, 48)).save(stream, "JPEG")
    return stream.getvalue()


def write_tar(
    path: Path, members: Iterable[tuple[str | tarfile.TarInfo, bytes | str]], mode: str = "w"
) -> Path:
    """A tar archive; a member may bring a header of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members:
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_zip(path: Path, members: Iterable[tuple[str | zipfile.ZipInfo, bytes | str]]) -> Path:
    """A ZIP archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def samples(count: int, first: int = 0) -> list[tuple[str, bytes | str]]:
    """Members as img2dataset writes them: a picture, its caption and what is known of it."""
    found: list[tuple[str, bytes | str]] = []
    for i in range(first, first + count):
        key = f"{i:09}"
        found.append((f"{key}.jpg", noise(i)))
        found.append((f"{key}.json", f'{{"caption": "no. {i}", "key": "{key}", "width": 32}}'))
        found.append((f"{key}.txt", f"Picture {i}."))
    return found

"""Drawn pictures of a few kinds of scenes: no two alike, each recognisable, nobody's but ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = (384, 288)

Draw = ImageDraw.ImageDraw
Colour = tuple[int, int, int]


def _sky(top: Colour, bottom: Colour) -> Image.Image:
    share = np.linspace(0, 1, SIZE[1])[:, None, None]
    rows = (1 - share) * np.array(top) + share * np.array(bottom)
    return Image.fromarray(np.broadcast_to(rows, (SIZE[1], SIZE[0], 3)).astype(np.uint8).copy())


def _hills(draw: Draw, rng: np.random.Generator, level: float, rough: float, fill: Colour) -> None:
    xs = np.arange(0, SIZE[0] + 8, 8)
    waves = sum(
        np.sin(xs / rng.uniform(30, 120) + rng.uniform(0, 6)) * rough / n for n in range(1, 4)
    )
    edge = list(zip(xs.tolist(), (level + waves).tolist(), strict=True))
    draw.polygon([*edge, (SIZE[0] + 8, SIZE[1]), (0, SIZE[1])], fill=fill)


def _sea(rng: np.random.Generator) -> Image.Image:
    image = _sky((120, 180, 235), (235, 244, 250))
    draw, horizon = ImageDraw.Draw(image), rng.integers(120, 160)
    for n in range(14):
        shade = 150 - 7 * n
        _hills(draw, rng, horizon + n * 12, 3, (20, shade - 30 if shade > 60 else 30, shade + 60))
    x, y = rng.integers(70, 300), horizon + 18
    draw.polygon([(x, y), (x, y - 85), (x + 48, y - 6)], fill=(250, 250, 245))
    draw.polygon([(x - 4, y), (x - 4, y - 70), (x - 34, y - 6)], fill=(238, 238, 230))
    draw.polygon([(x - 40, y), (x + 55, y), (x + 38, y + 20), (x - 28, y + 20)], fill=(130, 60, 40))
    return image


def _forest(rng: np.random.Generator) -> Image.Image:
    image = _sky((190, 220, 235), (225, 240, 225))
    draw = ImageDraw.Draw(image)
    for row in range(4):
        base = 170 + row * 36
        for x in range(int(rng.integers(-30, 0)), SIZE[0], int(rng.integers(26, 40))):
            height = int(rng.integers(70, 130))
            green = (20 + 6 * row, int(rng.integers(70, 120)) + 8 * row, 45)
            draw.rectangle([x + 15, base - 10, x + 20, base + 14], fill=(90, 62, 40))
            for step in range(3):
                top, wide = base - height + step * height // 4, 9 + step * 7
                points = [(x + 18, top), (x + 18 - wide, top + height // 2)]
                draw.polygon([*points, (x + 18 + wide, top + height // 2)], fill=green)
    return image


def _desert(rng: np.random.Generator) -> Image.Image:
    image = _sky((90, 160, 225), (250, 225, 180))
    draw, x = ImageDraw.Draw(image), rng.integers(40, 320)
    draw.ellipse([x, 30, x + 46, 76], fill=(255, 236, 150))
    for n in range(5):
        _hills(draw, rng, 150 + n * 30, 16, (238 - 14 * n, 190 - 17 * n, 120 - 14 * n))
    return image.filter(ImageFilter.GaussianBlur(0.6))


def _city(rng: np.random.Generator) -> Image.Image:
    image = _sky((60, 80, 140), (245, 170, 130))
    draw, x = ImageDraw.Draw(image), -10
    while x < SIZE[0]:
        wide, top = int(rng.integers(34, 62)), int(rng.integers(50, 170))
        shade = int(rng.integers(30, 70))
        draw.rectangle([x, top, x + wide, SIZE[1]], fill=(shade, shade, shade + 22))
        for wy in range(top + 10, SIZE[1] - 8, 16):
            for wx in range(x + 7, x + wide - 9, 13):
                if rng.random() < 0.6:
                    draw.rectangle([wx, wy, wx + 6, wy + 8], fill=(250, 215, 120))
        x += wide + int(rng.integers(2, 8))
    return image


def _mountain(rng: np.random.Generator) -> Image.Image:
    image = _sky((100, 160, 220), (225, 235, 245))
    draw = ImageDraw.Draw(image)
    for n in range(4):
        x, wide = int(rng.integers(-20, 330)), int(rng.integers(110, 180))
        top, foot = 50 + 25 * n + int(rng.integers(0, 20)), 250
        grey = 120 - 14 * n
        draw.polygon([(x, top), (x - wide, foot), (x + wide, foot)], fill=(grey, grey, grey + 14))
        snow = (foot - top) // 3
        edge = wide * snow // (foot - top)
        points = [(x, top), (x - edge, top + snow), (x - edge // 3, top + snow - 12)]
        points += [(x, top + snow + 6), (x + edge // 3, top + snow - 10), (x + edge, top + snow)]
        draw.polygon(points, fill=(248, 250, 252))
    _hills(draw, rng, 245, 8, (80, 120, 70))
    return image


def _night(rng: np.random.Generator) -> Image.Image:
    image = _sky((8, 10, 34), (40, 40, 90))
    draw = ImageDraw.Draw(image)
    for x, y, size in zip(*rng.uniform(0, 1, (3, 120)), strict=True):
        at = x * SIZE[0], y * SIZE[1], size * 1.8
        draw.ellipse([at[0], at[1], at[0] + at[2], at[1] + at[2]], fill=(255, 255, 230))
    x, y = int(rng.integers(60, 300)), int(rng.integers(40, 120))
    draw.ellipse([x, y, x + 60, y + 60], fill=(250, 245, 215))
    draw.ellipse([x + 18, y - 6, x + 74, y + 54], fill=(16, 18, 46))
    _hills(draw, rng, 265, 10, (10, 12, 20))
    return image


SCENES: dict[str, tuple[Callable[[np.random.Generator], Image.Image], tuple[str, ...]]] = {
    "sea": (_sea, ("A sailing boat on the sea.", "Blue sea and a boat.", "A boat at sea.")),
    "forest": (_forest, ("A forest of fir trees.", "Green trees in a forest.", "A dark forest.")),
    "desert": (_desert, ("Sand dunes in the desert.", "The sun over a desert.", "A hot desert.")),
    "city": (_city, ("Lights of a city at dusk.", "Tall buildings in a city.", "City windows.")),
    "mountain": (_mountain, ("A mountain with snow.", "Snowy mountain peaks.", "High mountains.")),
    "night": (_night, ("The moon and stars at night.", "A night sky.", "Stars in the night.")),
}


def draw_scene(kind: str, number: int) -> Image.Image:
    """One picture; the same number draws the same."""
    draw, _ = SCENES[kind]
    return draw(np.random.default_rng([number, *kind.encode()]))


def write_scenes(folder: Path, numbers: range, kinds: tuple[str, ...] = tuple(SCENES)) -> None:
    """Pictures with captions beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        for number in numbers:
            draw_scene(kind, number).save(folder / f"{kind}{number}.png")
            captions = SCENES[kind][1]
            (folder / f"{kind}{number}.txt").write_text(captions[number % len(captions)])

"""Figures of a store, made small for the page; anybody may have put them there.

A file's size and its head are looked at before anything is decoded: 17 kB can hold a picture of
gigabytes.
"""

from __future__ import annotations

import base64
import io
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sgdstudy.errors import InputError, reason
from sgdstudy.figures.style import LINES
from sgdstudy.language import everywhere, say, to_say, translated
from sgdstudy.report.charts import Live
from sgdstudy.report.markup import cut, slug
from sgdstudy.text import printable

MAX_WIDTH = 1600  # pixels of a figure in the page
MAX_BYTES = 150_000  # of a figure in the page: thirty of them stay under 6 MB
MOST_BYTES = 20_000_000  # of a file
MOST_PIXELS = 30_000_000  # of a file: ten times the largest of ours
MOST_IN_ALL = 1_500_000_000  # pixels of a page: a few minutes
MOST_PICTURES = 24  # of a study
MAGIC = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


@dataclass(frozen=True)
class Picture:
    """A figure, inline.

    Attributes:
        id: anchor in the page.
        name: file name.
        caption: the name in words.
        alt: what it shows, for those who do not see it.
        description: the axes, where the file says them.
        data: base64 of the PNG.
        size: width and height in pixels.
        live: the same to zoom; None where it cannot be had.
    """

    id: str
    name: str
    caption: str
    alt: str
    description: str
    data: str
    size: tuple[int, int]
    live: Live | None = None


class Album:
    """Takes the figures of a page, as long as there is room."""

    def __init__(self) -> None:
        self.pixels = 0

    def of_study(
        self, paths: Iterable[Path], section: str, question: str
    ) -> tuple[list[Picture], list[str]]:
        """Return the figures of a study, and in lines what is left out."""
        found: list[Picture] = []
        notes: list[str] = []
        for number, path in enumerate(paths):
            if number >= MOST_PICTURES:
                text = to_say("a study shows {most} figures; the others are left out")
                notes.append(say(text, most=MOST_PICTURES))
                break
            try:
                width, height = picture_size(path)
                if self.pixels + width * height > MOST_IN_ALL:
                    raise InputError(say("the figures of this page are too large together"))
                self.pixels += width * height
                found.append(_picture(path, section, question))
            except InputError as error:
                notes.append(say("{name} is left out: {why}", name=path.name, why=str(error)))
        return found, notes


def _picture(path: Path, section: str, question: str) -> Picture:
    data, size, description = small_png(path)
    words = translated(path.stem.replace("_", " ").strip())
    about = f"{words[:1].upper()}{words[1:]}"
    title = say("Figure “{words}” of “{question}”", words=words, question=question)
    return Picture(
        id=f"{section}-figure-{slug(path.stem)}",
        name=path.name,
        caption=about,
        alt=say("{title}: {what}", title=title, what=description) if description else title,
        description=re.split("|".join(f" {w}" for w in everywhere(LINES)), description)[0].rstrip(
            "."
        ),
        data=base64.b64encode(data).decode(),
        size=size,
    )


def picture_size(path: Path) -> tuple[int, int]:
    """Return width and height of a PNG, from the head of the file.

    Raises:
        InputError: it is no PNG, or one that is too large.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(24)
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"it cannot be read ({error.strerror or error})") from None
    if not head.startswith(MAGIC) or len(head) < 24:
        raise InputError(f"{path.name} in the store is no picture: it does not begin as a PNG does")
    width, height = struct.unpack(">II", head[16:])
    if not 0 < width * height <= MOST_PIXELS or size > MOST_BYTES:
        raise InputError(
            f"{path.name} has {width:,} x {height:,} pixels, {size:,} bytes; a figure of ours has "
            f"at most {MOST_PIXELS:,}, {MOST_BYTES:,}"
        )
    return width, height


def small_png(path: Path) -> tuple[bytes, tuple[int, int], str]:
    """Return a figure as a small PNG of 256 colours, its size, and the description it carries.

    Raises:
        InputError: the file is no picture, or too large.
    """
    from PIL import Image

    picture_size(path)
    try:
        with Image.open(path, formats=["PNG"]) as opened:
            description = cut(printable(str(opened.info.get("Description", ""))))
            image = Image.new("RGB", opened.size, "white")
            image.paste(opened, mask=opened.getchannel("A") if opened.mode == "RGBA" else None)
    except Exception as error:  # Pillow raises errors of many kinds on damaged files
        raise InputError(
            f"the figure {path.name} in the store is no picture: {reason(error)}"
        ) from error
    width = min(image.width, MAX_WIDTH)
    while True:
        height = max(round(image.height * width / image.width), 1)
        part = (
            image
            if width == image.width
            else image.resize((width, height), Image.Resampling.LANCZOS)
        )
        buffer = io.BytesIO()
        few = part.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        few.save(buffer, "png", compress_level=9)
        if len(buffer.getvalue()) <= MAX_BYTES or width < 400:
            return buffer.getvalue(), part.size, description
        width = int(width * 0.8)

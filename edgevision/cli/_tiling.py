"""The options `--tile ...` of every subcommand that shows pictures to a model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgevision.tiling import Tiling

Tile = Annotated[
    str | None,
    typer.Option(
        metavar="WxH|model", help="Look at overlapping tiles of this size, to find what is small in large pictures."
    ),
]
TileOverlap = Annotated[
    float | None, typer.Option(min=0, max=0.8, help="Share of a tile that its neighbour sees too; 0.2 by default.")
]
TileLevels = Annotated[
    int | None, typer.Option(min=1, max=6, help="So often, with tiles twice as large each time; 2 by default.")
]
TileMerge = Annotated[
    str | None, typer.Option(metavar="ios|nms", help="How the tiles' boxes are put together; ios by default.")
]


def tiling_of(tile: str | None, overlap: float | None, levels: int | None, merge: str | None) -> Tiling | None:
    """The tiling that was asked for; None: none.

    Raises:
        UsageError: the size or the way of merging is none, or something was said of tiles and no size.
    """
    from edgevision.errors import UsageError
    from edgevision.tiling import MAX_SIDE_PX, MIN_SIDE_PX, Tiling

    if tile is None:
        if (overlap, levels, merge) != (None, None, None):
            raise UsageError("--tile-overlap, --tile-levels and --tile-merge need --tile WxH, or --tile model")
        return None
    size: tuple[int, int] | str = tile
    if tile != "model":
        sides = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", tile)
        size = (int(sides[1]), int(sides[2])) if sides else (0, 0)
        if not all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in size):
            raise UsageError(
                f"--tile: {tile!r} is no size; give `model`, or width and height in pixels such as 640x480, each from "
                f"{MIN_SIDE_PX} to {MAX_SIDE_PX}"
            )
    if merge not in {None, "ios", "nms"}:
        raise UsageError(f"--tile-merge: {merge!r} is neither ios nor nms")
    said = {"overlap": overlap, "levels": levels, "merge": merge}
    return Tiling.model_validate({"size": size, **{key: value for key, value in said.items() if value is not None}})

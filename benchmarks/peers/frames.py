"""Frames of 1280x720 from a folder of pictures, each scaled to cover the frame and cut at its centre.

python frames.py PICTURES MOST FRAMES.npy FIRST.npy
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 1280, 720


def cover(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(720, 1280, 3) of the picture's middle."""
    height, width = picture.shape[:2]
    scale = max(WIDTH / width, HEIGHT / height)
    large = cv2.resize(picture, (max(WIDTH, round(width * scale)), max(HEIGHT, round(height * scale))))
    top, left = (large.shape[0] - HEIGHT) // 2, (large.shape[1] - WIDTH) // 2
    return np.ascontiguousarray(large[top : top + HEIGHT, left : left + WIDTH]).astype(np.uint8)


def main() -> None:
    """Write both files."""
    folder, most, every, first = sys.argv[1:]
    files = sorted(file for file in Path(folder).iterdir() if file.suffix.lower() in {".jpg", ".jpeg", ".png", ".bmp"})
    read = (cv2.imread(str(file), cv2.IMREAD_COLOR) for file in files[: int(most)])
    frames = [cover(picture.astype(np.uint8)) for picture in read if picture is not None]
    if not frames:
        raise SystemExit(f"{folder}: no picture can be read (.jpg, .png, .bmp)")
    np.save(every, np.stack(frames))
    np.save(first, frames[0])
    print(len(frames))


if __name__ == "__main__":
    main()

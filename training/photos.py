"""Packs the photographs listed in `sources.txt` into one small file, and reads that file as square tiles.

    python3 photos.py UNPACKED_PACKAGES photos.zip

A picture is scaled so that its short side is TILE pixels, the scale at which video holds such content, and cut along
its long side into overlapping squares. The file is a plain zip of JPEGs.
"""

import io
import pathlib
import sys
import zipfile

import numpy as np
import torch
from PIL import Image

TILE = 448
MAX_TILES = 3


def listed():
    """The file names in `sources.txt`, in order."""
    lines = (pathlib.Path(__file__).parent / "sources.txt").read_text().splitlines()
    return [line for line in lines if line and line[0] not in "#["]


def pack(root, target):
    """Write the tiles of every listed picture under `root` to the zip `target`."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for number, name in enumerate(listed()):
            picture = Image.open(pathlib.Path(root) / name)
            picture.draft("RGB", (2 * TILE, 2 * TILE))
            picture = picture.convert("RGB")
            scale = TILE / min(picture.size)
            size = [max(TILE, round(side * scale)) for side in picture.size]
            picture = picture.resize(size, Image.Resampling.LANCZOS)
            spare = max(size) - TILE
            count = min(MAX_TILES, 1 + -(-2 * spare // TILE))
            for i in range(count):
                offset = spare * i // max(count - 1, 1)
                left, top = (offset, 0) if size[0] >= size[1] else (0, offset)
                out = io.BytesIO()
                picture.crop((left, top, left + TILE, top + TILE)).save(out, "JPEG", quality=88)
                stem = pathlib.PurePath(name).stem.replace(" ", "-")
                archive.writestr(zipfile.ZipInfo(f"{number:03d}-{stem}-{i}.jpg"), out.getvalue())


def read(path):
    """All tiles as one tensor (tiles, 3, TILE, TILE) of bytes."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        tiles = [np.array(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names]
    return torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).contiguous()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    pack(sys.argv[1], sys.argv[2])

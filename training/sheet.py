"""Contact sheets: frames side by side in one PNG."""

import numpy as np
from PIL import Image

GAP = 2


def save_sheet(path, rows):
    """Write `rows`, each a list of frames (3, h, w) in [-1, 1] of one size, as a grid."""
    h, w = rows[0][0].shape[1:]
    sheet = np.zeros((len(rows) * (h + GAP) - GAP, max(map(len, rows)) * (w + GAP) - GAP, 3), np.uint8)
    for i, row in enumerate(rows):
        for j, frame in enumerate(row):
            picture = (frame.float().cpu() * 127.5 + 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
            sheet[i * (h + GAP) : i * (h + GAP) + h, j * (w + GAP) : j * (w + GAP) + w] = picture
    Image.fromarray(sheet).save(path)

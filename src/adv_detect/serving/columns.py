"""Batches of pictures as columns of a table: bytes, or texts in base64, as Spark and MLflow's schema hand them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from adv_detect.errors import DataError
from adv_detect.pictures import PictureError, PictureInput
from adv_detect.serving.encoded import decode_pictures


def pictures_of(table: pd.DataFrame | pd.Series, steps: PictureInput) -> NDArray[np.float32]:
    """Decode the pictures of a batch.

    Args:
        table: One column, of whatever name, of encoded pictures: bytes, or texts in base64; it may have no row.
        steps: From a picture to the input of the network.

    Returns:
        Images ``(N, channels, H, W)``, float32, in the pixel range of the network.

    Raises:
        DataError: There is not just one column, or a cell holds no picture that can be used.
    """
    if isinstance(table, pd.DataFrame) and table.shape[1] != 1:
        raise DataError(
            f"expected one column of encoded pictures (bytes, or text in base64), got {list(table.columns)[:8]}"
        )
    cells = (table.iloc[:, 0] if isinstance(table, pd.DataFrame) else table).tolist()
    pixels = [_decoded(number, one, steps) for number, one in enumerate(cells)]
    return np.concatenate(pixels) if pixels else np.zeros((0, *steps.shape), dtype=np.float32)


def _decoded(number: int, cell: object, steps: PictureInput) -> NDArray[np.float32]:
    if isinstance(cell, str):
        return decode_pictures([cell], steps, first=number)
    if not isinstance(cell, bytes | bytearray | memoryview):
        raise DataError(
            f"row {number}: expected an encoded picture (bytes, or text in base64), got {type(cell).__name__}"
        )
    try:
        pixels, _ = steps.decode(bytes(cell), max_pixels=Image.MAX_IMAGE_PIXELS)
    except PictureError as exc:
        raise DataError(
            f"row {number}: expected an encoded picture (JPEG, PNG, ...), got one that cannot be read: {exc}"
        ) from exc
    images: NDArray[np.float32] = steps.batch([pixels]).numpy()
    return images

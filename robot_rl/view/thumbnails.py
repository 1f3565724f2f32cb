"""First and last pictures of some episodes in one picture a camera."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from robot_rl.data.frame_codec import encode
from robot_rl.data.store import EpisodeStore
from robot_rl.errors import StoreError

HEIGHT, MARGIN, GAP = 150, 6, 2


def montages(store: EpisodeStore, ids: Sequence[str], folder: str | Path) -> dict[str, Path]:
    """Write one JPEG for each camera, an episode a column, first picture above last, and return the files.

    Episodes whose pictures cannot be read are left out.

    Args:
        store: The store.
        ids: Which episodes.
        folder: Where the files go.
    """
    files = {}
    for name, schema in store.schema.streams.items():
        if schema.spec.is_image and (columns := [c for id in ids if (c := _column(store, id, name)) is not None]):
            path = Path(folder) / f"{name}.jpg"
            path.write_bytes(encode(_beside(columns), "jpeg"))
            files[name] = path
    return files


def _column(store: EpisodeStore, id: str, camera: str) -> np.ndarray | None:
    try:
        stream = store.read(id).streams.get(camera)
        if stream is None or not len(stream):
            return None
        first, last = stream.data[0], stream.data[len(stream) - 1]
    except StoreError:
        return None
    return np.concatenate([_small(first), _bar(GAP, _small(first).shape[1]), _small(last)])


def _small(picture: np.ndarray) -> np.ndarray:
    """Return a picture [h, w, 1 or 3] as RGB of the strip's height."""
    colour = np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture
    width = max(1, round(picture.shape[1] * HEIGHT / picture.shape[0]))
    shrink = cv2.INTER_AREA if picture.shape[0] > HEIGHT else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(colour, (width, HEIGHT), interpolation=shrink))


def _bar(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


def _beside(columns: Sequence[np.ndarray]) -> np.ndarray:
    gap = _bar(columns[0].shape[0], MARGIN)
    return np.concatenate([part for column in columns for part in (column, gap)][:-1], axis=1)

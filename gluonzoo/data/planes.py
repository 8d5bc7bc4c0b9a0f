"""The quick way from a decoded photograph to a place in a network's input, with OpenCV where it is installed."""
import os
import sys
import threading

import numpy as np

__all__ = ["Buffers", "opencv", "look_up", "normalising_table", "normalise_image"]

_found, _scratch = [], threading.local()


def opencv():
    """OpenCV's module, or None where it is not installed."""
    if not _found:
        before = os.environ.get("LD_LIBRARY_PATH")
        try:
            import cv2
        except ImportError:
            cv2 = None
        # Its import sets this variable, which would reach every process that is started later.
        if before is None:
            os.environ.pop("LD_LIBRARY_PATH", None)
        else:
            os.environ["LD_LIBRARY_PATH"] = before
        _found.append(cv2)
    return _found[0]


def normalising_table(scale, shift):
    """What every pixel becomes: times `scale` plus `shift` of its channel, each rounded to float32.

    Shape: (C,), (C,) float32 -> (C, 256) float32.
    """
    table = np.arange(256, dtype=np.float32) * np.asarray(scale, dtype=np.float32)[:, None]
    return table + np.asarray(shift, dtype=np.float32)[:, None]


def look_up(plane, table, out):
    """Every pixel replaced by its entry of a table.

    Shape: plane (H, W) uint8, table (256,) float32 -> out (H, W) float32.
    """
    cv2 = opencv()
    if cv2 is not None and plane.flags.c_contiguous:
        cv2.LUT(plane, table, out)
    else:
        np.take(table, plane, out=out, mode="clip")


def _split(cv2, image):
    """The channels of (H, W, 3) uint8 as planes, in memory that this thread uses again for its next image."""
    held = getattr(_scratch, "planes", None)
    if held is None or held[0].shape != image.shape[:2]:
        held = _scratch.planes = [np.empty(image.shape[:2], dtype=np.uint8) for _ in range(3)]
    cv2.split(image, held)
    return held


def normalise_image(image, table, flipped, out):
    """One image as planes, mirrored where asked, each pixel replaced by its channel's entry of a `normalising_table`.

    Shape: image (H, W, c) uint8, c 1 or as many as the table has; table (C, 256) float32 -> out (C, H, W) float32.
    """
    cv2 = opencv()
    if cv2 is None:
        image = image[:, ::-1] if flipped else image
        for channel, target in enumerate(out):
            np.take(table[channel], image[..., channel % image.shape[2]], out=target, mode="clip")
        return
    if flipped:
        image = cv2.flip(image, 1).reshape(image.shape)
    planes = _split(cv2, image) if image.shape[2] == 3 else [image[..., 0]]
    for channel, target in enumerate(out):
        cv2.LUT(planes[channel % len(planes)], table[channel], target)


class Buffers:
    """Arrays of float32 that are used again as soon as nobody else holds them.

    A new array of many megabytes costs as much as filling it: the system has to find and clear every page.
    """

    def __init__(self, most=8):
        self._held, self._most, self._lock = [], most, threading.Lock()

    def take(self, shape):
        """An array of a shape, its contents anything. It is given out again only after all references to it are gone."""
        with self._lock:
            for place in range(len(self._held)):
                # Held by the list and by the call alone; what was given out is a view, which holds its owner.
                if sys.getrefcount(self._held[place]) == 2:
                    whole = self._held[place]
                    if whole.shape[1:] == tuple(shape[1:]) and len(whole) >= shape[0]:
                        return whole[:shape[0]]
                    del self._held[place], whole
                    break
            whole = np.empty(shape, dtype=np.float32)
            if len(self._held) < self._most:
                self._held.append(whole)
            return whole[:]

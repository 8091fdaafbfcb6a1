"""Small videos of a photograph in the public domain, written while tests run."""

import struct
from pathlib import Path

import numpy as np
import pytest

from fer_lightning.inference.video import import_cv2

cv2 = import_cv2()  # whose FFmpeg is silent from its first use
SIZE = (160, 120)  # width, height
CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}


def astronaut():
    """The photograph: (512, 512, 3) RGB; its face is at (224, 110)."""
    return pytest.importorskip("skimage.data").astronaut()


def write(path, frames, *, fps=10.0):
    """Write (H, W, 3) RGB frames."""
    height, width = frames[0].shape[:2]
    code = cv2.VideoWriter_fourcc(*CODECS[Path(path).suffix.lower()])
    file = cv2.VideoWriter(str(path), code, fps, (width, height))
    for frame in frames:
        file.write(np.ascontiguousarray(frame[:, :, ::-1]))
    file.release()
    return path


def grey(num_frames, size=SIZE):
    """Frames without a face: a slanted line that moves."""
    width, height = size
    rows, columns = np.mgrid[:height, :width]
    return [
        np.repeat(((rows + columns + 4 * i) % 64 + 60).astype(np.uint8)[:, :, None], 3, axis=2)
        for i in range(num_frames)
    ]


def moving_face(num_frames, size=SIZE):
    """Frames with one face of about 50 pixels that moves to the right."""
    image, frames = astronaut(), []
    for i in range(num_frames):
        move = np.array([[0.6, 0, 50 + 60 * i / num_frames - 224 * 0.6], [0, 0.6, 60 - 110 * 0.6]])
        frames.append(cv2.warpAffine(image, move, size, borderValue=(90, 90, 90)))
    return frames


def two_faces(num_frames):
    """Frames of 240 x 240 pixels with a face above that goes right, and one below that goes left."""
    face = cv2.resize(astronaut()[40:190, 150:300], (90, 90))
    frames = []
    for i in range(num_frames):
        frame = np.full((240, 240, 3), 90, np.uint8)
        x = round(150 * i / (num_frames - 1))
        frame[10:100, x : x + 90] = face
        frame[130:220, 150 - x : 240 - x] = face[:, ::-1]
        frames.append(frame)
    return frames


def turned(path):
    """Let the header of an MP4 say that its frames are to be turned by 90 degrees, as telephones do."""
    content = bytearray(Path(path).read_bytes())
    place = content.index(b"tkhd") + 4 + 40  # of the matrix, in version 0
    one = 1 << 16
    struct.pack_into(">9i", content, place, 0, one, 0, -one, 0, 0, SIZE[1] * one, 0, 1 << 30)
    Path(path).write_bytes(content)


def broken_off(path, share=0.5):
    """Keep the first part of a file."""
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: int(len(content) * share)])


def read(path):
    """Read a video: its RGB frames, and its frames per second."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        found, pixels = capture.read()
        if not found:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(pixels[:, :, ::-1])


class Capture:
    """What ``cv2.VideoCapture`` does, with frames, times and properties that are given."""

    def __init__(self, frames, times, *, on_grab=None, **properties):
        self._frames, self._times = frames, [seconds * 1000 for seconds in times]
        self._properties = {getattr(cv2, f"CAP_PROP_{name}"): value for name, value in properties.items()}
        self._number, self._on_grab = -1, on_grab

    def isOpened(self):  # noqa: N802 - OpenCV's
        return True

    def grab(self):
        self._number += 1
        if self._on_grab is not None:
            self._on_grab(self._number + 1)
        return self._number < len(self._times)

    def retrieve(self):
        return True, self._frames[self._number][:, :, ::-1]

    def get(self, key):
        return self._times[self._number] if key == cv2.CAP_PROP_POS_MSEC else self._properties.get(key, 0.0)

    def set(self, key, value):
        return True

    def release(self):
        self.released = True

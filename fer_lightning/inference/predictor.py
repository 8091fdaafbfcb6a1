"""A trained network on photographs, in three lines of Python."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fer_lightning.core.errors import FERError
from fer_lightning.core.hardware import choose_device
from fer_lightning.evaluation.calibration import with_temperature
from fer_lightning.inference.boxes import BoxFile
from fer_lightning.inference.crops import MARGIN, flag_face, square_face
from fer_lightning.inference.explain import Method, as_batch, choose_method, explain
from fer_lightning.inference.faces import Detection, Detector, make_detector
from fer_lightning.inference.images import Photo, load_photo, named_images
from fer_lightning.inference.network import Network, load_any_network
from fer_lightning.inference.onnx_network import OnnxNetwork
from fer_lightning.inference.results import UNSURE, Explanation, Face, FaceList, ImageResult, join_faces
from fer_lightning.inference.video_predictor import FPS, VideoPrediction
from fer_lightning.training.classifier import FERClassifier

BATCH_SIZE = 256  # faces predicted at a time, and images whose results wait for them


class _Pending(NamedTuple):
    """An image whose faces wait for the network."""

    name: str
    detections: Sequence[Detection] = ()
    squares: Sequence[NDArray[np.uint8]] = ()
    problem: str | None = None
    image: Image.Image | None = None


class FERPredictor:
    """Finds faces in photographs and predicts their expressions, in float32.

    ``FERPredictor.load`` makes one. Predictors are not safe to share between threads.

    Args:
        network: From ``load_network``, or an ONNX file.
        detector: Finds the faces of an image.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``mps``; ONNX needs the CPU.
        margin: Added on each side of a box, in shares of its longest side.

    Raises:
        FERError: If the device does not exist, or cannot run the network.
    """

    def __init__(
        self,
        network: Network | OnnxNetwork,
        *,
        detector: Detector,
        device: str = "auto",
        margin: float = MARGIN,
    ) -> None:
        model = network.metadata.config["model"]
        self.network = network
        self.detector = detector
        self.margin = margin
        if isinstance(network, OnnxNetwork):
            if device not in ("auto", "cpu"):
                raise FERError(f"device={device}: {network.path} predicts on the CPU; expected auto or cpu")
            self.device = "cpu"
        else:
            self.device = choose_device(device)
            network.classifier.to(self.device)
        self._size, self._channels = model["image_size"], model.get("in_channels", 1)

    @classmethod
    def load(
        cls,
        checkpoint: str | Path | None = None,
        *,
        detector: str | Detector = "yunet",
        boxes: str | Path | None = None,
        device: str = "auto",
        trust: Collection[str] = (),
    ) -> Self:
        """Load a network and a detector.

        Args:
            checkpoint: A run folder, a checkpoint, a file of safetensors or ONNX, or the folder of an export;
                None is the network that the package holds.
            detector: ``yunet``, ``haar``, or ``none`` for images that are cropped to a single face; or a
                callable, see ``Detector``.
            boxes: A CSV file with the boxes of the faces, which replaces the detector; see ``BoxFile``.
            device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``mps``.
            trust: Packages whose networks the checkpoint may name, besides this one.

        Raises:
            FERError: If the checkpoint cannot be read, or the detector is not installed.
        """
        if boxes is not None:
            detector = BoxFile(Path(boxes).expanduser())
        elif isinstance(detector, str):
            detector = make_detector(detector)
        return cls(load_any_network(checkpoint, trust=trust), detector=detector, device=device)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the expressions, in the order of the network's outputs."""
        return self.network.metadata.classes

    def __call__(self, images: Any) -> FaceList:
        """Predict the expressions of all faces in one or several images.

        Args:
            images: Paths, Pillow images, arrays or tensors, one or many; see ``named_images``.

        Returns:
            The faces of all images, in their order; ``face.image`` says which.

        Raises:
            FERError: If an image cannot be read; all such images are named. ``stream`` goes on instead.
        """
        return join_faces(self.stream(images))

    def explain(self, images: Any, *, method: Method | None = None) -> list[Explanation]:
        """Predict all faces in one or several images, and compute what the network looked at in each.

        Args:
            images: As for a call.
            method: ``grad-cam`` or ``occlusion``; None is ``grad-cam`` if the network ends in convolutions.

        Returns:
            One for each face: ``.face``, ``.crop``, ``.heat`` ``(S, S)`` in [0, 1], ``.method``.

        Raises:
            FERError: As for a call, or if the network is an ONNX file, or has no convolutions for
                ``grad-cam``.
        """
        results = list(self.stream_named(named_images(images), explain=self.choose_method(method)))
        join_faces(results)  # names the images that were not read
        return [explained for result in results for explained in result.explanations]

    def choose_method(self, method: Method | None = None) -> Method:
        """Return the method that explains this network: the given one if it can, or the default.

        Raises:
            FERError: If it cannot, or if the network is an ONNX file.
        """
        return choose_method(self._explained, self._size, self._channels, method)

    @property
    def _explained(self) -> FERClassifier:
        if isinstance(self.network, OnnxNetwork):
            raise FERError(
                f"{self.network.path}: an ONNX file gives nothing but probabilities, so what it looks at "
                "cannot be explained; name the checkpoint that it was made from"
            )
        return self.network.classifier

    def stream(self, images: Any, *, keep_images: bool = False) -> Iterator[ImageResult]:
        """Predict one image after another, in memory that does not grow with their number.

        Args:
            images: As for a call; an iterable is read as results are taken.
            keep_images: Return each upright image with its result, and predict them one at a time.

        Returns:
            One result for each image, in their order; one with a ``problem`` where it cannot be read.
        """
        yield from self.stream_named(named_images(images), keep_images=keep_images)

    def stream_named(
        self,
        photos: Iterable[tuple[str, Photo]],
        *,
        keep_images: bool = False,
        explain: Method | None = None,
    ) -> Iterator[ImageResult]:
        """Predict pairs of a name and an image, see ``stream``; explain each face if a method is given."""
        pending: list[_Pending] = []
        for name, photo in photos:
            pending.append(self._find_faces(name, photo, keep_images=keep_images))
            waiting = sum(len(one.squares) for one in pending)
            if keep_images or waiting >= BATCH_SIZE or len(pending) >= BATCH_SIZE:
                yield from self._predict(pending, explain)
                pending = []
        yield from self._predict(pending, explain)

    def video(self, source: str | Path | int, *, fps: float = FPS, **settings: Any) -> VideoPrediction:
        """Predict the frames of a video, and follow its faces over time.

        Args:
            source: The path of a video, or the number of a camera.
            fps: Frames per second that are predicted; all of a video that has fewer.
            settings: Such as ``smoothing=0.5`` (seconds), see ``VideoPrediction``.

        Returns:
            What is iterated over once, for the ``seconds`` and ``faces`` of each frame; afterwards it has
            ``tracks``, a ``summary()``, and the ``problem`` of a video that breaks off.

        Raises:
            FERError: If the video cannot be opened, or OpenCV is not installed.
        """
        threshold = self.network.calibration.threshold
        return VideoPrediction(self.stream_named, source, fps=fps, threshold=threshold, **settings)

    def _find_faces(self, name: str, photo: Photo, *, keep_images: bool) -> _Pending:
        try:
            image = load_photo(photo, channels=3)
            detections = self.detector(image, name)
            squares = [
                square_face(image, found.box, size=self._size, channels=self._channels, margin=self.margin)
                for found in detections
            ]
        except FERError as error:
            return _Pending(name, problem=str(error))
        return _Pending(name, detections, squares, image=image if keep_images else None)

    def _predict(self, pending: Sequence[_Pending], method: Method | None) -> Iterator[ImageResult]:
        squares = [square for one in pending for square in one.squares]
        found = self._probabilities(squares)
        heat = iter(self._heat(squares, found, method) if method and squares else ())
        probs = iter(found)
        for one in pending:
            faces = FaceList(
                self._face(one.name, found, square, next(probs))
                for found, square in zip(one.detections, one.squares, strict=True)
            )
            explained = (
                Explanation(face, square, next(heat), method)
                for face, square in zip(faces, one.squares, strict=True)
                if method
            )
            yield ImageResult(one.name, faces, one.problem, one.image, tuple(explained))

    def _face(
        self, name: str, found: Detection, square: NDArray[np.uint8], probs: NDArray[np.float32]
    ) -> Face:
        flags = flag_face(square, found.box)
        threshold = self.network.calibration.threshold
        if threshold is not None and probs.max() < threshold:
            flags = (*flags, UNSURE)
        named = dict(zip(self.classes, probs.tolist(), strict=True))
        return Face(name, found.box, found.score, self.classes[int(probs.argmax())], named, flags)

    def _heat(
        self, squares: Sequence[NDArray[np.uint8]], probs: NDArray[np.float32], method: Method
    ) -> NDArray[np.float32]:
        """Return ``(N, S, S)`` heat maps of the predicted classes."""
        return explain(
            self._explained, as_batch(np.stack(squares)), torch.from_numpy(probs.argmax(axis=1)), method
        )

    def _probabilities(self, squares: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return calibrated ``(N, C)`` probabilities of ``(S, S)`` or ``(S, S, 3)`` uint8 faces."""
        probs = [np.empty((0, len(self.classes)), np.float32)]
        for first in range(0, len(squares), BATCH_SIZE):
            faces = as_batch(np.stack(squares[first : first + BATCH_SIZE]))
            probs.append(self._answer(faces))
        return np.concatenate(probs)

    def _answer(self, faces: Tensor) -> NDArray[np.float32]:
        """Return calibrated ``(N, num_classes)`` probabilities of ``(N, C, S, S)`` uint8 faces."""
        if isinstance(self.network, OnnxNetwork):
            probs = self.network(faces.contiguous().numpy())
        else:
            with torch.inference_mode():
                logits = self.network.classifier(faces.to(self.device)).float()
                probs = logits.softmax(dim=1).cpu().numpy()
        if not np.isfinite(probs).all():
            raise FERError(
                f"{self.network.path}: the network answers NaN, since its weights have diverged or are "
                "damaged; take another checkpoint"
            )
        temperature = self.network.calibration.temperature
        is_calibrated = isinstance(self.network, OnnxNetwork) or temperature == 1
        return probs if is_calibrated else with_temperature(probs, temperature)

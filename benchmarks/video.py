"""Videos: ms for a predicted frame, and how often the expression changes with and without smoothing.

Not a part of ``make bench``: ``python -m benchmarks.video``. They show the astronaut of scikit-image, who
moves and comes closer; in the noisy ones she is small and her mouth is covered: a hard case.
"""

import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from skimage import data

from fer_lightning import FERPredictor
from fer_lightning.inference.video_writer import AnnotatedVideo

SECONDS, RATE, ROUNDS = 6, 25, 3
NOISE = 40  # standard deviation, of grey levels
SEEDS = range(5)


def write(
    path: Path, width: int, height: int, *, scale: float = 1.0, noise: float = 0, seed: int = 0
) -> Path:
    """Write a video of the astronaut."""
    rng, image = np.random.default_rng(seed), data.astronaut()[:, :, ::-1].copy()
    if noise:
        image[128:165, 195:255] = image[118:128, 195:255].mean(axis=(0, 1))
    file = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), RATE, (width, height))
    for number in range(SECONDS * RATE):
        share = number / (SECONDS * RATE)
        zoom = scale * (1 + 0.5 * share)
        x = width / 2 - 224 * zoom + 60 * np.sin(6 * share)
        place = np.array([[zoom, 0, x], [0, zoom, height * 0.45 - 110 * zoom]])
        frame = cv2.warpAffine(image, place, (width, height), borderValue=(120, 120, 120))
        file.write(np.clip(frame + noise * rng.standard_normal(frame.shape), 0, 255).astype(np.uint8))
    file.release()
    return path


def timed(function: Any, spent: list[float]) -> Any:
    """Add up the seconds of a function."""

    def call(*args: Any, **settings: Any) -> Any:
        begun = time.perf_counter()
        result = function(*args, **settings)
        spent.append(time.perf_counter() - begun)
        return result

    return call


def measure_speed(predictor: FERPredictor, path: Path) -> None:
    """Print ms for a predicted frame: the median of the rounds."""
    rows = []
    for _ in range(ROUNDS):
        detecting, network = list[float](), list[float]()
        timing = FERPredictor(predictor.network, detector=timed(predictor.detector, detecting))
        timing._probabilities = timed(timing._probabilities, network)  # type: ignore[method-assign]
        begun = time.perf_counter()
        frames = list(timing.video(path, fps=5))
        rows.append([sum(detecting), sum(network), time.perf_counter() - begun])
    found, answered, total = (1000 * np.median(rows, axis=0) / len(frames)).tolist()
    begun = time.perf_counter()
    saved = AnnotatedVideo(path.with_suffix(".webm"), RATE)
    for frame in predictor.video(path, fps=5, every_frame=True):
        saved.write(frame)
    saved.close()
    annotated = time.perf_counter() - begun
    print(
        f"{path.stem}: {total:.0f} ms for a predicted frame ({found:.0f} detector, {answered:.0f} network), "
        f"{1000 / total:.1f} frames/s; n = {len(frames)} x {ROUNDS}; {SECONDS} s of video with --save "
        f"in {annotated:.1f} s"
    )


def measure_changes(predictor: FERPredictor, folder: Path) -> None:
    """Print how often the expression of the astronaut changes from frame to frame."""
    for smoothing in (0, 0.25, 0.5, 1):
        changes, pairs = 0, 0
        for seed in SEEDS:
            video = predictor.video(folder / f"noisy{seed}.avi", smoothing=smoothing)
            faces = [max(frame.faces, key=lambda face: face.score or 0) for frame in video if frame.faces]
            changes += sum(one.expression != other.expression for one, other in pairwise(faces))
            pairs += len(faces) - 1
        print(f"smoothing={smoothing}: {changes} changes in {pairs} pairs of frames", flush=True)


def main() -> None:
    """Print both."""
    predictor = FERPredictor.load()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for width, height in ((640, 480), (1280, 720)):
            measure_speed(predictor, write(folder / f"{width}x{height}.avi", width, height))
        for seed in SEEDS:
            write(folder / f"noisy{seed}.avi", 320, 240, scale=0.5, noise=NOISE, seed=seed)
        measure_changes(predictor, folder)


if __name__ == "__main__":
    main()

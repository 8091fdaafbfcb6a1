"""What a run's page shows of the network itself: heat maps of the classes, the map of the embeddings."""

import base64
from typing import Any

import numpy as np

from fer_lightning.evaluation.explanations import EmbeddingMap, Explanations
from fer_lightning.report.rendering import Image, run_figure
from fer_lightning.report.run_results import RunResults, path_inside

_STEPS = 2000  # positions along the longer axis of the map: finer than any screen

_METHODS = {
    "grad-cam": "Grad-CAM (Selvaraju et al. 2017) of the last convolution, whose coarse map is enlarged",
    "occlusion": "Occlusion (Zeiler and Fergus 2014): where hiding a part of the face lowers the probability",
}


def explanations_figure(run: RunResults) -> Image | None:
    """Embed the heat maps of the reported split; None if there are none."""
    path = path_inside(run.folder, f"explanations_{run.split}.npz")
    if not path.exists():
        return None
    found = Explanations.load(path)
    method = _METHODS.get(found.method, found.method)
    caption = (
        f"{method}; dark red is the most, each map for itself. Mean: over n correctly classified faces, "
        "evenly spaced in the split, on their mean face. Each example is explained for the class "
        "that was predicted."
    )
    return run_figure(run, f"explanations_{run.split}", caption, "Heat maps of each class over faces.")


def embedding_context(run: RunResults) -> dict[str, Any] | None:
    """Prepare the variables of ``templates/embeddings.html``; None for a run without a map."""
    path = path_inside(run.folder, f"embeddings_{run.split}.npz")
    if not path.exists():
        return None
    found = EmbeddingMap.load(path)
    low = found.positions.min(axis=0).astype(np.float64)
    extent = found.positions.max(axis=0) - low
    steps = ((found.positions - low) * (_STEPS / max(float(extent.max()), 1e-12))).round().astype(int)
    sheet = base64.b64encode(found.sheet.tobytes()).decode("ascii")
    return {
        "description": _describe(found),
        "data": {
            "classes": list(found.classes),
            "ids": found.ids.tolist(),
            "x": steps[:, 0].tolist(),
            "y": steps[:, 1].tolist(),
            "width": int(steps[:, 0].max()),
            "height": int(steps[:, 1].max()),
            "labels": found.labels.tolist(),
            "answers": found.answers.tolist(),
            "percents": [int(100 * prob) for prob in found.probs],  # rounded down: 100 is certainty
            "sheet": f"data:image/jpeg;base64,{sheet}",
            "columns": found.columns,
            "side": found.side,
        },
    }


def _describe(found: EmbeddingMap) -> str:
    shown = f"all {len(found.ids):,} images"
    if len(found.ids) < found.num_images:
        shown = f"{len(found.ids):,} of {found.num_images:,} images, evenly spaced in the split"
    first, second = (100 * share for share in found.shares)
    return (
        "What the last layer is given for each image, projected on its first two principal components, "
        f"which hold {first:.0f} % and {second:.0f} % of the variance: images that are close here may "
        f"differ in the rest. Shown: {shown}; colour: true class; a dot is answered right, a cross wrong."
    )

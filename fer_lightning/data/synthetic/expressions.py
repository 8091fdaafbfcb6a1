"""The facial action units that show each of the seven expressions.

An expression is a set of action units (AU), the muscle movements of the Facial Action Coding System (Ekman &
Friesen 1978). The sets are the prototypes of EMFACS (Friesen & Ekman 1983, "EMFACS-7: Emotional Facial Action
Coding System", unpublished manual).
"""

from collections.abc import Mapping

ACTION_UNITS: Mapping[str, tuple[int, ...]] = {
    "angry": (4, 5, 7, 23),  # brow lowerer, upper lid raiser, lid tightener, lip tightener
    "disgust": (9, 15, 16),  # nose wrinkler, lip corner depressor, lower lip depressor
    # Brows raised and lowered at once, both lid units, lip stretcher, jaw drop.
    "fear": (1, 2, 4, 5, 7, 20, 26),
    "happy": (6, 12),  # cheek raiser, lip corner puller
    "neutral": (),
    "sad": (1, 4, 15),  # inner brow raiser, brow lowerer, lip corner depressor
    "surprise": (1, 2, 5, 26),  # inner and outer brow raiser, upper lid raiser, jaw drop
}
ALL_UNITS = sorted({unit for units in ACTION_UNITS.values() for unit in units})

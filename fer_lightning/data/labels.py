"""Class names of the seven expressions, and their published spellings.

Classes are matched by name, never by position: the folders of the Kaggle form sort to angry, disgust, fear,
happy, neutral, sad, surprise, while the codes of ``fer2013.csv`` end with sad, surprise, neutral.
"""

from collections.abc import Sequence

from fer_lightning.core.errors import FERError
from fer_lightning.core.text import normalized

EXPRESSIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")

# The codes of fer2013.csv and icml_face_data.csv (Goodfellow et al. 2013), in order.
FER2013_CODES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

_SYNONYMS = {
    "anger": "angry",
    "disgusted": "disgust",
    "disgusting": "disgust",
    "fearful": "fear",
    "afraid": "fear",
    "scared": "fear",
    "happiness": "happy",
    "happily": "happy",
    "joy": "happy",
    "neutrality": "neutral",
    "normal": "neutral",
    "sadness": "sad",
    "surprised": "surprise",
}


def canonical_name(name: str) -> str:
    """Normalise a class name: trimmed, lower case, accents composed, synonyms of the expressions replaced."""
    plain = normalized(name).strip().lower().replace("-", "_").replace(" ", "_")
    return _SYNONYMS.get(plain, plain)


def class_index(name: str, classes: Sequence[str]) -> int:
    """Find a class by name.

    Args:
        name: A class as a folder or a file spells it, such as ``Happiness``.
        classes: The class list of the data config, in the order of the labels.

    Returns:
        The position of the class in ``classes``; an unknown name raises ``FERError``.
    """
    wanted = canonical_name(name)
    for index, candidate in enumerate(classes):
        if canonical_name(candidate) == wanted:
            return index
    raise FERError(f"unknown class {name!r}, expected one of: {', '.join(classes)}")

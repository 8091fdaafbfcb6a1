"""Class names of the seven expressions, and their published spellings.

Classes are matched by name, never by position: the folders of the Kaggle form sort to angry, disgust, fear,
happy, neutral, sad, surprise, while the codes of ``fer2013.csv`` end with sad, surprise, neutral.
"""

from collections.abc import Sequence

from fer_lightning.core.errors import FERError
from fer_lightning.core.text import normalized

EXPRESSIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")

# With the eighth of FER+ and AffectNet.
ALL_EXPRESSIONS = (*EXPRESSIONS, "contempt")

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


# Of folders alone: in a sentence, such as a model's reply, these words name no class.
_FOLDER_SYNONYMS = {
    "mad": "angry",
    "digust": "disgust",
    "smile": "happy",
    "smiling": "happy",
    "calm": "neutral",
    "suprise": "surprise",
    "suprised": "surprise",
}


def canonical_name(name: str) -> str:
    """Normalise a class name: trimmed, lower case, accents composed, synonyms of the expressions replaced."""
    plain = _plain_name(name)
    return _SYNONYMS.get(plain, plain)


def _plain_name(name: str) -> str:
    return normalized(name).strip().lower().replace("-", "_").replace(" ", "_")


def label_or_none(name: str, classes: Sequence[str]) -> int | None:
    """Find a class by name, as ``class_index`` does; None if there is none."""
    try:
        return class_index(name, classes)
    except FERError:
        return None


def class_index(name: str, classes: Sequence[str]) -> int:
    """Find a class by name: by the name itself, else by a synonym.

    Args:
        name: A class as a folder or a file spells it, such as ``Happiness``.
        classes: The class list of the data config, in the order of the labels.

    Returns:
        The position of the class in ``classes``; an unknown name raises ``FERError``.
    """
    plain = _plain_name(name)
    by_synonym = _FOLDER_SYNONYMS.get(plain, canonical_name(name))
    for normalise, wanted in ((_plain_name, plain), (canonical_name, by_synonym)):
        for index, candidate in enumerate(classes):
            if normalise(candidate) == wanted:
                return index
    raise FERError(f"unknown class {name!r}, expected one of: {', '.join(classes)}")

import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.data.labels import EXPRESSIONS, FER2013_CODES, canonical_name, class_index

WRITTEN = {
    "angry": ["angry", "Anger", "ANGRY"],
    "disgust": ["disgust", "Disgusted", "disgusting"],
    "fear": ["fear", "fearful", "afraid", "Scared"],
    "happy": ["happy", "happiness", "Happily", "joy"],
    "neutral": ["neutral", "Neutrality", "normal"],
    "sad": ["sad", "Sadness"],
    "surprise": ["surprise", "surprised", " Surprise\n"],
}


@pytest.mark.parametrize(("expression", "names"), WRITTEN.items(), ids=lambda value: str(value)[:8])
def test_every_spelling_of_an_expression_is_known(expression, names):
    for name in names:
        assert canonical_name(name) == expression
        assert EXPRESSIONS[class_index(name, EXPRESSIONS)] == expression


def test_csv_codes_name_the_expressions_in_another_order():
    assert sorted(EXPRESSIONS) == list(EXPRESSIONS) == sorted(FER2013_CODES)
    # Goodfellow et al. 2013: 0 Angry, 1 Disgust, 2 Fear, 3 Happy, 4 Sad, 5 Surprise, 6 Neutral
    assert FER2013_CODES == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    assert [EXPRESSIONS.index(FER2013_CODES[code]) for code in (4, 5, 6)] == [5, 6, 4]


def test_label_is_the_position_in_the_class_list():
    assert class_index("happiness", ["sad", "Happy"]) == 1
    assert class_index("sadness", ["sad", "Happy"]) == 0


def test_class_list_may_use_synonyms():
    assert class_index("angry", ["calm", "anger"]) == 1


def test_class_names_ignore_case_spaces_and_hyphens():
    assert class_index("In Love", ["bored", "in_love"]) == 1
    assert class_index("in-love", ["bored", "In Love"]) == 1


@pytest.mark.parametrize("name", ["contempt", "", "angry2", "0"])
def test_unknown_class_error_lists_the_classes(name):
    with pytest.raises(FERError, match="expected one of: sad, happy") as caught:
        class_index(name, ["sad", "happy"])
    assert repr(name) in str(caught.value)

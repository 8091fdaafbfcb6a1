"""Class probabilities of a language model: from log-probabilities, and written as JSON."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.llm.replies import answer_start, read_answer, read_reply


def entry(token, prob, **others):
    return {"token": token, "logprob": math.log(prob) if prob else -9999.0, "bytes": None, **others}


def body(tokens, alternatives, *, at=-1, content=None, finish="stop"):
    """A chat completion of some tokens, with the alternatives for one of them."""
    position = at % len(tokens)
    listed = [entry(token, prob) for token, prob in alternatives.items()]
    content_of_logprobs = [
        entry(token, 0.9, top_logprobs=listed if number == position else [entry(token, 0.9)])
        for number, token in enumerate(tokens)
    ]
    text = "".join(tokens) if content is None else content
    message = {"role": "assistant", "content": text}
    return json.dumps(
        {
            "choices": [
                {"message": message, "finish_reason": finish, "logprobs": {"content": content_of_logprobs}}
            ]
        }
    )


def probs_of(text):
    reply = read_reply(text, EXPRESSIONS)
    assert reply.status == "ok"
    return None if reply.probs is None else dict(zip(EXPRESSIONS, reply.probs.values, strict=True))


def test_tokens_that_begin_one_class_are_summed():
    alternatives = {
        "Happy": 0.5,
        " happy": 0.1,
        "hap": 0.05,
        "Joy": 0.05,
        "Sad": 0.1,
        "S": 0.04,
        "su": 0.06,
        "The": 0.1,
    }
    found = read_reply(body(["Happy"], alternatives), EXPRESSIONS)
    known = 0.86  # without "S", which begins two classes, and "The"
    expected = dict.fromkeys(EXPRESSIONS, 0.0) | {
        "happy": 0.7 / known,
        "sad": 0.1 / known,
        "surprise": 0.06 / known,
    }
    assert dict(zip(EXPRESSIONS, found.probs.values, strict=True)) == pytest.approx(expected)
    assert found.probs.unknown == pytest.approx(1 - known)


@pytest.mark.parametrize("token", ["A", " an", "a", "h", "The", "I", "**", "", "\n", "not", "\ufffd"])
def test_token_that_begins_no_class_alone_is_unknown(token):
    found = read_reply(body(["Happy"], {"Happy": 0.6, token: 0.3}), EXPRESSIONS)
    assert found.probs.values[EXPRESSIONS.index("happy")] == pytest.approx(1)
    assert found.probs.unknown == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("tokens", "at"),
    [
        (["Happy"], 0),
        (["\n", " ", "Happy", "."], 2),
        (["**", "Happy", "**"], 1),
        (["<think>", "The", " mouth", " is sad", "</think>", "\n\n", "Happy"], 6),
        (["The", " mouth", " is sad", "</think>", "Happy"], 4),  # a server that drops the opening tag
        (["[THINK]", "sad?", "[/THINK]", "Happy"], 3),
        (["<|channel|>", "analysis", "sad", "<|channel|>", "final", "<|message|>", "Happy"], 6),
        (["<|im_start|>", "assistant\n", "Happy", "<|im_end|>"], 2),
        (['{"', "emotion", '": "', "happy", '"}'], 3),
        (["```", "json\n", '{"', "label", '":"', "happy", '"}', "\n```"], 5),
        (["hap", "py", "</s>"], 0),
    ],
)
def test_alternatives_are_those_of_the_first_token_of_the_answer(tokens, at):
    found = probs_of(body(tokens, {tokens[at]: 0.6, "sad": 0.2}, at=at))
    assert found["happy"] == pytest.approx(0.75)
    assert found["sad"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    "text",
    [
        body(["The", " person", " is", " happy"], {"The": 0.9, "Happy": 0.05}, at=0),  # 5 % belong to classes
        body(["Happy"], {"Happy": 0.9, "Sad": 0.9}),  # more than 1
        body(["token_id:17"], {"token_id:17": 1.0}, content="Happy"),
        json.dumps({"choices": [{"message": {"content": "Happy"}, "logprobs": None}]}),
        json.dumps({"choices": [{"message": {"content": "Happy"}, "logprobs": {"content": None}}]}),
        json.dumps({"choices": [{"message": {"content": "Happy"}, "logprobs": {"content": []}}]}),
        json.dumps({"choices": [{"message": {"content": "Happy"}, "logprobs": {"content": [7, {}]}}]}),
        json.dumps(
            {"choices": [{"message": {"content": "Happy"}, "logprobs": {"content": [{"token": "Happy"}]}}]}
        ),
        json.dumps({"choices": [{"message": {"content": "Happy"}, "logprobs": [1]}]}),
    ],
)
def test_without_usable_log_probabilities_the_answer_stays(text):
    assert probs_of(text) is None


JUNK = st.recursive(
    st.none() | st.booleans() | st.floats(allow_subnormal=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["token", "logprob", "top_logprobs", "content"]), inner, max_size=4)
    ),
)


@given(JUNK)
def test_anything_in_place_of_log_probabilities_is_read(junk):
    text = json.dumps({"choices": [{"message": {"content": "Happy"}, "logprobs": {"content": junk}}]})
    reply = read_reply(text, EXPRESSIONS)
    assert reply.status == "ok"
    assert reply.probs is None or sum(reply.probs.values) == pytest.approx(1)


@given(st.text())
def test_answer_starts_within_any_text(text):
    assert 0 <= answer_start(text) <= len(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"happy": 0.75, "sad": 0.25}',
        '{"Happiness": 75, "sadness": 25}',
        '{"emotion": "happy", "probabilities": {"happy": 0.75, "sad": 0.25, "fear": 0}}',
        '```json\n{"happy": 0.75, "sad": 0.25}\n```',
        '<think>sad?</think>{"happy": 0.75, "sad": 0.25}</s>',
        '{"happy": 0.74, "sad": 0.2467}',  # rounded by the model
    ],
)
def test_json_of_probabilities_is_an_answer(text):
    reply = read_answer(text, EXPRESSIONS)
    assert reply.status == "ok"
    assert EXPRESSIONS[reply.label] == "happy"
    assert reply.probs.values[reply.label] == pytest.approx(0.75, abs=1e-3)
    assert sum(reply.probs.values) == pytest.approx(1)
    assert reply.probs.unknown == 0


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ('{"happy": 0.5, "sad": 0.5}', "two_labels"),
        ('{"emotion": "sad", "probabilities": {"happy": 0.75, "sad": 0.25}}', "two_labels"),
        ('{"happy": 0.9, "sad": 0.9}', "two_labels"),
        ('{"happy": -1, "sad": 2}', "two_labels"),
        ('{"happy": NaN, "sad": 1}', "two_labels"),
        ('{"happy": true, "sad": 1}', "two_labels"),
        ('{"happy": 0.75, "sad": 0.25', "two_labels"),  # not closed: more may have been to come
        ('{"happy": 0.7, "bored": 0.3}', "unparsable"),
    ],
)
def test_json_that_is_no_distribution_has_no_answer(text, status):
    assert read_answer(text, EXPRESSIONS).status == status


def test_logits_of_saved_replies_are_not_invented():
    reply = read_answer("happy", EXPRESSIONS)
    assert (reply.status, reply.probs) == ("ok", None)
    assert np.isfinite(reply.label)

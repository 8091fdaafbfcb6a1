import io
import json
import logging
import math
import threading
import time

import numpy as np
import pytest
from rich.console import Console

from fer_lightning.core.errors import FERError
from fer_lightning.core.signals import RunStopped
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.llm import client
from fer_lightning.llm import predictor as predictor_module
from fer_lightning.llm.predictor import LLMPredictor
from fer_lightning.llm.settings import LLMSettings
from tests.chat_server import HALF, HANG, HTML, Answer, ChatServer, choice, digest, fail, say

KEY = "sk-secret-0123456789abcdef"
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 4, 4), dtype=np.uint8)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def make_predictor(tmp_path):
    """Make a predictor for some of the images, or for given ones."""

    def make(server, num_images=24, *, images=None, classes=EXPRESSIONS, **changes):
        images = IMAGES[:num_images] if images is None else images
        settings = {
            "model": "maker/seer:7b",
            "base_url": server.url,
            "api_key_env": "OPENAI_API_KEY",
            "prompt": "Which of {classes}?",
            "enlarge": 1,
            "concurrency": 4,
            "timeout": 10,
            "max_retries": 2,
            "max_requests": None,
            "extra": {},
            "cache": str(tmp_path / "cache"),
        }
        return LLMPredictor(
            LLMSettings(**settings | changes),
            images=images,
            ids=np.array([f"test/sad/{number}" for number in range(len(images))]),
            labels=np.arange(len(images)) % len(classes),
            hashes=np.array([int(digest(image), 16) for image in images], dtype=np.uint64),
            classes=classes,
        )

    return make


def never():
    """Do nothing."""


def by_image(*answers):
    """Give image 0, 1, ... always the same answer, and "Happy" to all others."""
    fixed = {digest(image): answer for image, answer in zip(IMAGES, answers, strict=False)}
    return ChatServer(lambda image, number: fixed.get(image, say("Happy")))


FAILURES = {
    "refusal": say("I'm sorry, I can't help with that."),
    "unparsable": say("not angry"),
    "two_labels": say("angry or sad"),
    "empty": say(""),
    "null_content": say(None),
    "truncated": say("The person", "length"),
    "html": HTML,
    "invalid_json": HALF,
    "no_choices": Answer('{"choices": []}'),
    "rejected": fail(400),
    "rate_limited": fail(429),
    "server_error": fail(500),
    "timeout": HANG,
    "connection_error": Answer("x", cut_after=0),
}
FINAL = ("refusal", "unparsable", "two_labels", "empty", "null_content", "truncated")


@pytest.mark.slow
def test_every_failure_has_a_status_and_no_class(make_predictor, monkeypatch):
    monkeypatch.setattr(predictor_module, "MAX_FAILURES_IN_A_ROW", 100)
    with by_image(*FAILURES.values()) as server:
        predictor = make_predictor(server, 20, timeout=2.0, max_retries=1)
        predictor.predict(check=never)
    predictions = predictor._predictions()
    assert predictions.status.tolist() == [*FAILURES, *["ok"] * 6]
    assert predictions.predicted.tolist() == [-1] * len(FAILURES) + [EXPRESSIONS.index("happy")] * 6
    assert np.isnan(predictions.probs[: len(FAILURES)]).all()
    assert predictions.probs.dtype == np.float32
    np.testing.assert_array_equal(predictions.probs[len(FAILURES) :], np.tile(np.eye(7)[3], (6, 1)))
    assert not predictions.leaked.any()


@pytest.mark.slow
def test_only_images_without_a_model_reply_are_asked_again(make_predictor, monkeypatch):
    monkeypatch.setattr(predictor_module, "MAX_FAILURES_IN_A_ROW", 100)
    with by_image(*FAILURES.values()) as server:
        first, second = (make_predictor(server, 20, timeout=2.0, max_retries=0) for _ in range(2))
        first.predict(check=never)
        assert server.num_requests == first.num_requests == 20
        second.predict(check=never)
        assert second.num_requests == len(FAILURES) - len(FINAL)
        assert second.num_cached == len(FINAL) + 6
        for status, image in zip(FAILURES, IMAGES, strict=False):
            assert server.asked[digest(image)] == (1 if status in FINAL else 2), status
    assert second._predictions().status.tolist() == first._predictions().status.tolist()


def test_transient_failures_do_not_change_the_answers(make_predictor):
    failing = {digest(IMAGES[0]): fail(500), digest(IMAGES[1]): fail(429, Retry_After="0.1")}
    with ChatServer(lambda image, number: failing.pop(image, say("Sad"))) as server:
        predictor = make_predictor(server, 6)
        predictor.predict(check=never)
    assert set(predictor._predictions().status) == {"ok"}
    assert predictor.num_requests == 8


@pytest.mark.parametrize(
    "change",
    [
        {"model": "x"},
        {"prompt": "?"},
        {"enlarge": 2},
        {"extra": {"temperature": 0}},
        {"classes": ("sad", "happy")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_changed_question_is_asked_again(make_predictor, change):
    with by_image() as server:
        make_predictor(server, 3).predict(check=never)
        make_predictor(server, 3, **change).predict(check=never)
        assert server.num_requests == 6


def test_settings_without_effect_on_answers_use_the_cache(make_predictor):
    with by_image() as server:
        make_predictor(server, 3).predict(check=never)
        again = make_predictor(server, 3, concurrency=1, timeout=9, max_retries=0, max_requests=1)
        again.predict(check=never)
        assert server.num_requests == 3
    assert (again.num_requests, again.num_cached) == (0, 3)


def test_new_images_are_added_to_the_saved_replies(make_predictor):
    with by_image() as server:
        make_predictor(server, 3).predict(check=never)
        make_predictor(server, 5).predict(check=never)
        assert server.num_requests == 5


def test_identical_images_need_one_request(make_predictor):
    with by_image() as server:
        predictor = make_predictor(server, images=IMAGES[[0, 1, 0, 0]])
        predictor.predict(check=never)
        assert server.num_requests == 2
    assert predictor._predictions().status.tolist() == ["ok"] * 4


def test_concurrency_limits_simultaneous_requests(make_predictor):
    def slowly(image, number):
        time.sleep(0.02)
        return say("Sad")

    for concurrency in (1, 3):
        with ChatServer(slowly) as server:
            make_predictor(server, 12, concurrency=concurrency, model=f"m{concurrency}").predict(check=never)
            assert server.busiest == concurrency


def test_max_requests_stops_the_run_and_the_next_continues(make_predictor):
    with by_image() as server:
        for asked in (4, 8):
            with pytest.raises(FERError) as error:
                make_predictor(server, 10, max_requests=4).predict(check=never)
            assert server.num_requests == asked
            message = f"predictor.max_requests=4: used up; the replies to {asked} of 10 images are saved"
            assert str(error.value).startswith(message)
        last = make_predictor(server, 10, max_requests=4)
        last.predict(check=never)
        assert max(server.asked.values()) == 1
    assert set(last._predictions().status) == {"ok"}


def test_many_failures_in_a_row_stop_the_run(make_predictor):
    with ChatServer(lambda image, number: fail(400, "images are not supported")) as server:
        with pytest.raises(FERError, match="no answer to 10 images in a row .10 rejected; .* not supported"):
            make_predictor(server, 24, concurrency=2).predict(check=never)
        assert 10 <= server.num_requests <= 13


def test_run_without_any_model_reply_is_an_error(make_predictor, monkeypatch):
    monkeypatch.setattr(predictor_module, "MAX_FAILURES_IN_A_ROW", 3)
    with ChatServer(lambda image, number: fail(500, "overloaded")) as server:
        for _ in range(4):  # in the third run at most one of 7 images is new, so no three in a row are
            predictor = make_predictor(server, 7, concurrency=1, max_retries=0)
            with pytest.raises(FERError) as error:
                predictor.predict(check=never)
        message = f"{server.url}: maker/seer:7b replied to none of 7 images (7 server_error; "
        assert str(error.value).startswith(message)
        assert "overloaded" in str(error.value)
        assert predictor.num_requests == 7
        server.behave = lambda image, number: say("Sad")
        well = make_predictor(server, 7)
        well.predict(check=never)
    assert set(well._predictions().status) == {"ok"}


def test_few_images_without_model_replies_are_an_error(make_predictor, tmp_path):
    server_of = {digest(IMAGES[0]): HTML}
    blind = fail(400, "does not support images")
    with ChatServer(lambda image, number: server_of.get(image, blind)) as server:
        predictor = make_predictor(server, images=IMAGES[[0, 1, 1, 2]])
        with pytest.raises(
            FERError, match=r"replied to none of 4 images \(3 rejected, 1 html; the last reply: "
        ):
            predictor.predict(check=never)
    predictor.write(tmp_path / "replies.jsonl")
    assert len((tmp_path / "replies.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("answer", [FAILURES[status] for status in FINAL], ids=FINAL)
def test_replies_without_any_answer_are_a_result(make_predictor, answer):
    with ChatServer(lambda image, number: answer) as server:
        predictor = make_predictor(server, 2)
        predictor.predict(check=never)
    assert predictor._predictions().predicted.tolist() == [-1, -1]


def test_repeated_failures_do_not_stop_the_run(make_predictor):
    order = {digest(image): place for place, image in enumerate(IMAGES)}
    behave = lambda image, number: say("Sad") if order[image] % 2 else HTML  # noqa: E731
    with ChatServer(behave) as server:
        make_predictor(server, concurrency=1).predict(check=never)
        again = make_predictor(server, concurrency=1)
        again.predict(check=never)
        assert server.num_requests == 24 + 12
    assert (again._predictions().status == "html").sum() == 12 > predictor_module.MAX_FAILURES_IN_A_ROW


def test_scattered_failures_do_not_stop_the_run(make_predictor):
    order = {digest(image): place for place, image in enumerate(IMAGES)}
    behave = lambda image, number: say("Sad") if order[image] % 6 == 0 else HTML  # noqa: E731
    with ChatServer(behave) as server:
        predictor = make_predictor(server, concurrency=1)
        predictor.predict(check=never)
    assert (predictor._predictions().status == "html").sum() == 20


def test_wrong_key_stops_the_run_at_once(make_predictor):
    with ChatServer(lambda image, number: fail(401, f"bad key {KEY}")) as server:
        with pytest.raises(FERError, match="HTTP 401") as error:
            make_predictor(server).predict(check=never)
        assert server.num_requests <= 4
    assert KEY not in str(error.value)
    assert "continues" not in str(error.value)


def test_forbidden_image_does_not_stop_a_continued_run(make_predictor):
    with by_image(say("Sad"), fail(403, "moderated")) as server:
        make_predictor(server, 1).predict(check=never)
        predictor = make_predictor(server, images=IMAGES[[1, 0, 2]], concurrency=1)
        predictor.predict(check=never)
    assert predictor._predictions().status.tolist() == ["rejected", "ok", "ok"]


@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation"])
def test_filtered_image_is_a_refusal_and_final(make_predictor, code):
    with by_image(Answer(json.dumps({"error": {"message": "no", "code": code}}), 400)) as server:
        for _ in range(2):
            predictor = make_predictor(server, 2)
            predictor.predict(check=never)
            assert predictor._predictions().status.tolist() == ["refusal", "ok"]
        assert server.num_requests == 2


def test_stopped_run_saves_the_requests_in_progress(make_predictor):
    under_way = threading.Event()

    def behave(image, number):
        under_way.set()
        time.sleep(0.4)
        return say("Sad")

    def check():
        if under_way.is_set():
            raise RunStopped(15)

    with ChatServer(behave) as server:
        stopped = make_predictor(server, 20, concurrency=3)
        with pytest.raises(RunStopped):
            stopped.predict(check=check)
        assert 1 <= server.num_requests <= 3
        asked = server.num_requests
        again = make_predictor(server, 20, concurrency=20)
        again.predict(check=never)
        assert server.num_requests == 20
    assert again.num_cached == stopped.facts()["num_requests"] == asked


def test_replies_are_written_in_image_order_with_answers(make_predictor, tmp_path):
    with by_image(say("Sad"), say("angry or sad"), HTML) as server:
        predictor = make_predictor(server, 4)
        predictor.predict(check=never)
    predictor.write(tmp_path / "replies.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "replies.jsonl").read_text().splitlines()]
    assert [(row["id"], row["label"], row["status"], row["answer"]) for row in rows] == [
        ("test/sad/0", "angry", "ok", "sad"),
        ("test/sad/1", "disgust", "two_labels", None),
        ("test/sad/2", "fear", "html", None),
        ("test/sad/3", "happy", "ok", "happy"),
    ]
    assert rows[0]["body"] == say("Sad").body
    assert rows[0]["image"] == digest(IMAGES[0])
    assert rows[0]["prompt"] == "Which of angry, disgust, fear, happy, neutral, sad, and surprise?"
    assert predictor.facts() == {
        "num_requests": 4,
        "num_cached": 0,
        "tokens": {"prompt": 255, "completion": 6},
    }


def test_undecodable_file_name_is_written(make_predictor, tmp_path):
    with by_image() as server:
        predictor = make_predictor(server, 1)
        predictor.ids = np.array(["caf\udce9.png"])
        predictor.predict(check=never)
    predictor.write(tmp_path / "replies.jsonl")
    assert json.loads((tmp_path / "replies.jsonl").read_text())["id"] == "caf\udce9.png"


def test_stopped_run_writes_the_replies_so_far(make_predictor, tmp_path):
    with by_image() as server:
        predictor = make_predictor(server, 6, max_requests=2)
        with pytest.raises(FERError):
            predictor.predict(check=never)
    predictor.write(tmp_path / "replies.jsonl")
    assert len((tmp_path / "replies.jsonl").read_text().splitlines()) == 2


def test_saved_replies_are_parsed_again(make_predictor):
    with by_image(say("joyful"), say("Sad")) as server:
        predictor = make_predictor(server, 2)
        predictor.predict(check=never)
        assert predictor._predictions().status.tolist() == ["unparsable", "ok"]
        text = predictor.cache.read_text()
        predictor.cache.write_text(text.replace("joyful", "joy"))
        again = make_predictor(server, 2)
        again.predict(check=never)
        assert server.num_requests == 2
    assert again._predictions().status.tolist() == ["ok", "ok"]


def test_key_is_in_no_file(make_predictor, tmp_path):
    echo = choice({"role": "assistant", "content": f"Happy {KEY}"})
    with by_image(echo, fail(400, KEY), Answer(f"<html>{KEY}")) as server:
        predictor = make_predictor(server, 4)
        predictor.predict(check=never)
        assert server.requests[0][1]["Authorization"] == f"Bearer {KEY}"
    predictor.write(tmp_path / "replies.jsonl")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 2
    assert not any(KEY.encode() in path.read_bytes() for path in files)


def test_progress_without_a_terminal_is_plain_lines(make_predictor, caplog, monkeypatch):
    monkeypatch.setattr(predictor_module, "SECONDS_PER_LINE", 0.0)
    monkeypatch.setattr(logging.getLogger("fer_lightning"), "propagate", True)
    with caplog.at_level("INFO", logger="fer_lightning"), by_image() as server:
        make_predictor(server, 3).predict(check=never)
    assert caplog.messages[0].startswith("asking maker/seer:7b at http://127.0.0.1:")
    assert caplog.messages[0].endswith("about 3 images; 0 were answered before")
    assert [line.split(",")[0] for line in caplog.messages[1:]] == [f"{n} of 3 images" for n in (1, 2, 3)]
    assert "images/s, " in caplog.messages[-1]


def test_progress_bar_shows_the_rate(make_predictor, monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(predictor_module, "console", screen)
    with by_image() as server:
        make_predictor(server, 3).predict(check=never)
    shown = screen.file.getvalue()
    assert "images/s, 3 requests" in shown
    assert "3/3" in shown


def with_probs(tokens=("Happy",), **alternatives):
    """An answer with log-probabilities of its only token."""
    listed = [{"token": token, "logprob": math.log(prob)} for token, prob in alternatives.items()]
    entries = [{"token": token, "logprob": -0.1, "top_logprobs": listed} for token in tokens]
    message = {"role": "assistant", "content": "".join(tokens)}
    return Answer(json.dumps({"choices": [{"message": message, "logprobs": {"content": entries}}]}))


def test_answers_get_the_probabilities_of_their_first_token(make_predictor, tmp_path):
    with by_image(with_probs(Happy=0.6, Sad=0.2), with_probs(Happy=0.3, Sad=0.5)) as server:
        predictor = make_predictor(server, 2, logprobs="auto")
        predictions = predictor.predict(check=never)
    assert server.requests[0][2]["logprobs"] is True
    assert server.requests[0][2]["top_logprobs"] == 20
    happy, sad = EXPRESSIONS.index("happy"), EXPRESSIONS.index("sad")
    assert predictions.probs[0, [happy, sad]].tolist() == pytest.approx([0.75, 0.25])
    assert predictions.predicted.tolist() == [happy, sad]
    assert predictions.graded
    assert predictor.facts()["probabilities"] == {
        "answers": 2, "with_probabilities": 2, "used": True, "unknown_mean": pytest.approx(0.2),
        "most_probable_is_another": 1,
    }  # fmt: skip
    predictor.write(tmp_path / "replies.jsonl")
    first = json.loads((tmp_path / "replies.jsonl").read_text().splitlines()[0])
    assert first["probs"] == dict.fromkeys(EXPRESSIONS, 0.0) | {"happy": 0.75, "sad": 0.25}
    assert first["unknown"] == pytest.approx(0.2)


def test_probabilities_are_used_only_if_every_answer_has_them(make_predictor, caplog):
    caplog.set_level(logging.INFO, logger="fer_lightning")
    with by_image(with_probs(Happy=0.6, Sad=0.2), say("Sad"), say("I can't.")) as server:
        predictions = make_predictor(server, 3, logprobs="auto").predict(check=never)
    assert not predictions.graded
    assert "no probabilities: 1 of 2 answers have them" in caplog.text


@pytest.mark.parametrize("status", [400, 403, 422])
def test_server_that_refuses_log_probabilities_is_asked_without(make_predictor, status):
    def behave(image, number):
        asked = server.requests[-1][2]
        return (
            fail(status, "logprobs are not supported with this model") if "logprobs" in asked else say("Sad")
        )

    with ChatServer(behave) as server:
        predictor = make_predictor(server, 3, concurrency=1, logprobs="auto")
        predictions = predictor.predict(check=never)
    assert predictions.status.tolist() == ["ok"] * 3
    assert ["logprobs" in body for _, _, body in server.requests] == [True, False, False, False]
    assert predictor.facts()["num_requests"] == 4
    assert predictor.facts()["probabilities"]["used"] is False


@pytest.mark.parametrize("kind", ["label", "probabilities"])
def test_structured_answers_follow_a_schema(make_predictor, kind):
    texts = {"label": '{"emotion": "sad"}', "probabilities": '{"sad": 0.8, "fear": 0.2}'}
    with by_image(say(texts[kind])) as server:
        predictions = make_predictor(server, 1, structured=kind).predict(check=never)
    schema = server.requests[0][2]["response_format"]["json_schema"]["schema"]
    names = list(schema["properties"]["emotion"]["enum"] if kind == "label" else schema["properties"])
    assert names == list(EXPRESSIONS)
    assert predictions.probs[0, EXPRESSIONS.index("sad")] == pytest.approx(1 if kind == "label" else 0.8)


def test_saved_replies_of_the_plain_question_stay_valid():
    plain = {"model": "m", "base_url": "http://localhost/v1", "api_key_env": "K", "prompt": "?", "enlarge": 1}
    rest = {"concurrency": 1, "timeout": 1, "max_retries": 0, "max_requests": None, "extra": {}, "cache": "c"}
    known = {"model", "base_url", "prompt", "enlarge", "extra"}
    assert LLMSettings(**plain, **rest).request_settings(EXPRESSIONS).keys() == known
    asked = LLMSettings(**plain, **rest, logprobs="auto").request_settings(EXPRESSIONS)
    assert asked.keys() == known | {"logprobs"}

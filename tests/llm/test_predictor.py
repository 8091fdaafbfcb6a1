import io
import json
import logging
import threading
import time

import numpy as np
import pytest
from rich.console import Console

from fer_lightning.core.errors import FERError
from fer_lightning.core.signals import RunStopped
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.llm import client, predictor
from fer_lightning.llm.client import LanguageModel
from fer_lightning.llm.predictor import LLMPredictor
from tests.chat_server import HALF, HANG, HTML, Answer, ChatServer, choice, digest, fail, say

KEY = "sk-secret-0123456789abcdef"
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 4, 4), dtype=np.uint8)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def interview(tmp_path):
    """Make an interview about some of the images, or about given ones."""

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
            LanguageModel(**settings | changes),
            images=images,
            ids=np.array([f"test/sad/{number}" for number in range(len(images))]),
            labels=np.arange(len(images)) % len(classes),
            hashes=np.array([int(digest(image), 16) for image in images], dtype=np.uint64),
            classes=classes,
        )

    return make


def never():
    """Check nothing."""


def by_image(*answers):
    """Answer about image 0, 1, ... always the same; "Happy" about all others."""
    said = {digest(image): answer for image, answer in zip(IMAGES, answers, strict=False)}
    return ChatServer(lambda image, number: said.get(image, say("Happy")))


FAULTS = {
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
SAID = ("refusal", "unparsable", "two_labels", "empty", "null_content", "truncated")


def test_every_fault_is_a_status_and_no_class(interview, monkeypatch):
    monkeypatch.setattr(predictor, "FAILURES_IN_A_ROW", 100)
    with by_image(*FAULTS.values()) as server:
        talk = interview(server, 20, timeout=2.0, max_retries=1)
        talk.ask(check=never)
    predictions = talk.predictions()
    assert predictions.status.tolist() == [*FAULTS, *["ok"] * 6]
    assert predictions.predicted.tolist() == [-1] * len(FAULTS) + [EXPRESSIONS.index("happy")] * 6
    assert np.isnan(predictions.probs[: len(FAULTS)]).all()
    assert predictions.probs.dtype == np.float32
    np.testing.assert_array_equal(predictions.probs[len(FAULTS) :], np.tile(np.eye(7)[3], (6, 1)))
    assert not predictions.leaked.any()


def test_the_model_s_words_are_paid_for_once_and_what_kept_them_away_is_asked_again(interview, monkeypatch):
    monkeypatch.setattr(predictor, "FAILURES_IN_A_ROW", 100)
    with by_image(*FAULTS.values()) as server:
        first, second = (interview(server, 20, timeout=2.0, max_retries=0) for _ in range(2))
        first.ask(check=never)
        assert server.num_requests == first.num_requests == 20
        second.ask(check=never)
        assert second.num_requests == len(FAULTS) - len(SAID)
        assert second.num_cached == len(SAID) + 6
        for status, image in zip(FAULTS, IMAGES, strict=False):
            assert server.asked[digest(image)] == (1 if status in SAID else 2), status
    assert second.predictions().status.tolist() == first.predictions().status.tolist()


def test_failures_that_pass_leave_no_trace_in_the_answers(interview):
    failing = {digest(IMAGES[0]): fail(500), digest(IMAGES[1]): fail(429, Retry_After="0.1")}
    with ChatServer(lambda image, number: failing.pop(image, say("Sad"))) as server:
        talk = interview(server, 6)
        talk.ask(check=never)
    assert set(talk.predictions().status) == {"ok"}
    assert talk.num_requests == 8


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
def test_another_question_is_asked_anew(interview, change):
    with by_image() as server:
        interview(server, 3).ask(check=never)
        interview(server, 3, **change).ask(check=never)
        assert server.num_requests == 6


def test_what_changes_no_answer_asks_nothing_anew(interview):
    with by_image() as server:
        interview(server, 3).ask(check=never)
        again = interview(server, 3, concurrency=1, timeout=9, max_retries=0, max_requests=1)
        again.ask(check=never)
        assert server.num_requests == 3
    assert (again.num_requests, again.num_cached) == (0, 3)


def test_other_images_are_added_to_the_same_replies(interview):
    with by_image() as server:
        interview(server, 3).ask(check=never)
        interview(server, 5).ask(check=never)
        assert server.num_requests == 5


def test_identical_images_are_asked_about_once(interview):
    with by_image() as server:
        talk = interview(server, images=IMAGES[[0, 1, 0, 0]])
        talk.ask(check=never)
        assert server.num_requests == 2
    assert talk.predictions().status.tolist() == ["ok"] * 4


def test_no_more_requests_than_allowed_go_out_at_a_time(interview):
    def slowly(image, number):
        time.sleep(0.02)
        return say("Sad")

    for concurrency in (1, 3):
        with ChatServer(slowly) as server:
            interview(server, 12, concurrency=concurrency, model=f"m{concurrency}").ask(check=never)
            assert server.busiest == concurrency


def test_the_budget_stops_the_run_and_the_next_goes_on(interview):
    with by_image() as server:
        for asked in (4, 8):
            with pytest.raises(FERError) as error:
                interview(server, 10, max_requests=4).ask(check=never)
            assert server.num_requests == asked
            assert str(error.value) == (
                f"predictor.max_requests=4: used up; the replies to {asked} of 10 images are kept, and the "
                "same command goes on from there"
            )
        last = interview(server, 10, max_requests=4)
        last.ask(check=never)
        assert max(server.asked.values()) == 1
    assert set(last.predictions().status) == {"ok"}


def test_a_broken_server_is_not_asked_about_every_image(interview):
    with ChatServer(lambda image, number: fail(400, "images are not supported")) as server:
        with pytest.raises(FERError, match="no answer to 10 images in a row .10 rejected; .* not supported"):
            interview(server, 24, concurrency=2).ask(check=never)
        assert 10 <= server.num_requests <= 13


def test_a_run_without_a_word_of_the_model_is_no_result_however_often_it_is_started(interview, monkeypatch):
    monkeypatch.setattr(predictor, "FAILURES_IN_A_ROW", 3)
    with ChatServer(lambda image, number: fail(500, "overloaded")) as server:
        for _ in range(4):  # of 7 images, one at most is new to the third start: no three in a row are
            talk = interview(server, 7, concurrency=1, max_retries=0)
            with pytest.raises(FERError) as error:
                talk.ask(check=never)
        assert str(error.value) == (
            f"{server.url}: no word of maker/seer:7b about any of 7 images (7 server_error; the last reply: "
            "overloaded); check that the model takes images and the server is well; the replies are kept, "
            "and the same command asks again"
        )
        assert talk.num_requests == 7
        server.behave = lambda image, number: say("Sad")
        well = interview(server, 7)
        well.ask(check=never)
    assert set(well.predictions().status) == {"ok"}


def test_few_images_are_enough_to_tell_a_model_that_sees_none(interview, tmp_path):
    server_of = {digest(IMAGES[0]): HTML}
    blind = fail(400, "does not support images")
    with ChatServer(lambda image, number: server_of.get(image, blind)) as server:
        talk = interview(server, images=IMAGES[[0, 1, 1, 2]])
        with pytest.raises(FERError, match=r"about any of 4 images \(3 rejected, 1 html; the last reply: "):
            talk.ask(check=never)
    talk.write(tmp_path / "replies.jsonl")
    assert len((tmp_path / "replies.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("answer", [FAULTS[status] for status in SAID], ids=SAID)
def test_a_model_that_says_something_useless_about_every_image_is_a_result(interview, answer):
    with ChatServer(lambda image, number: answer) as server:
        talk = interview(server, 2)
        talk.ask(check=never)
    assert talk.predictions().predicted.tolist() == [-1, -1]


def test_images_that_failed_before_do_not_make_a_server_broken(interview):
    order = {digest(image): place for place, image in enumerate(IMAGES)}
    behave = lambda image, number: say("Sad") if order[image] % 2 else HTML  # noqa: E731
    with ChatServer(behave) as server:
        interview(server, concurrency=1).ask(check=never)
        again = interview(server, concurrency=1)
        again.ask(check=never)
        assert server.num_requests == 24 + 12
    assert (again.predictions().status == "html").sum() == 12 > predictor.FAILURES_IN_A_ROW


def test_failures_far_between_are_borne(interview):
    order = {digest(image): place for place, image in enumerate(IMAGES)}
    behave = lambda image, number: say("Sad") if order[image] % 6 == 0 else HTML  # noqa: E731
    with ChatServer(behave) as server:
        talk = interview(server, concurrency=1)
        talk.ask(check=never)
    assert (talk.predictions().status == "html").sum() == 20


def test_a_wrong_key_ends_the_run_before_more_is_asked(interview):
    with ChatServer(lambda image, number: fail(401, f"bad key {KEY}")) as server:
        with pytest.raises(FERError, match="HTTP 401") as error:
            interview(server).ask(check=never)
        assert server.num_requests <= 4
    assert KEY not in str(error.value)
    assert "goes on" not in str(error.value)


def test_an_image_that_is_forbidden_costs_no_other_where_replies_are_kept(interview):
    with by_image(say("Sad"), fail(403, "moderated")) as server:
        interview(server, 1).ask(check=never)
        talk = interview(server, images=IMAGES[[1, 0, 2]], concurrency=1)
        talk.ask(check=never)
    assert talk.predictions().status.tolist() == ["rejected", "ok", "ok"]


@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation"])
def test_a_filtered_image_is_a_refusal_and_asked_about_once(interview, code):
    with by_image(Answer(json.dumps({"error": {"message": "no", "code": code}}), 400)) as server:
        for _ in range(2):
            talk = interview(server, 2)
            talk.ask(check=never)
            assert talk.predictions().status.tolist() == ["refusal", "ok"]
        assert server.num_requests == 2


def test_a_stopped_run_keeps_what_was_under_way(interview):
    under_way = threading.Event()

    def behave(image, number):
        under_way.set()
        time.sleep(0.4)
        return say("Sad")

    def check():
        if under_way.is_set():
            raise RunStopped(15)

    with ChatServer(behave) as server:
        stopped = interview(server, 20, concurrency=3)
        with pytest.raises(RunStopped):
            stopped.ask(check=check)
        assert 1 <= server.num_requests <= 3
        asked = server.num_requests
        again = interview(server, 20, concurrency=20)
        again.ask(check=never)
        assert server.num_requests == 20
    assert again.num_cached == stopped.facts()["num_requests"] == asked


def test_replies_are_written_in_the_order_of_the_images_with_what_they_come_to(interview, tmp_path):
    with by_image(say("Sad"), say("angry or sad"), HTML) as server:
        talk = interview(server, 4)
        talk.ask(check=never)
    talk.write(tmp_path / "replies.jsonl")
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
    assert talk.facts() == {"num_requests": 4, "num_cached": 0, "tokens": {"prompt": 255, "completion": 6}}


def test_a_file_name_that_is_no_text_is_written_like_any_other(interview, tmp_path):
    with by_image() as server:
        talk = interview(server, 1)
        talk.ids = np.array(["caf\udce9.png"])
        talk.ask(check=never)
    talk.write(tmp_path / "replies.jsonl")
    assert json.loads((tmp_path / "replies.jsonl").read_text())["id"] == "caf\udce9.png"


def test_a_run_that_was_stopped_early_writes_what_there_is(interview, tmp_path):
    with by_image() as server:
        talk = interview(server, 6, max_requests=2)
        with pytest.raises(FERError):
            talk.ask(check=never)
    talk.write(tmp_path / "replies.jsonl")
    assert len((tmp_path / "replies.jsonl").read_text().splitlines()) == 2


def test_a_better_parser_reads_old_replies_again(interview):
    with by_image(say("joyful"), say("Sad")) as server:
        talk = interview(server, 2)
        talk.ask(check=never)
        assert talk.predictions().status.tolist() == ["unparsable", "ok"]
        text = talk.cache.read_text()
        talk.cache.write_text(text.replace("joyful", "joy"))
        again = interview(server, 2)
        again.ask(check=never)
        assert server.num_requests == 2
    assert again.predictions().status.tolist() == ["ok", "ok"]


def test_the_key_stands_in_no_file(interview, tmp_path):
    echo = choice({"role": "assistant", "content": f"Happy {KEY}"})
    with by_image(echo, fail(400, KEY), Answer(f"<html>{KEY}")) as server:
        talk = interview(server, 4)
        talk.ask(check=never)
        assert server.requests[0][1]["Authorization"] == f"Bearer {KEY}"
    talk.write(tmp_path / "replies.jsonl")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 2
    assert not any(KEY.encode() in path.read_bytes() for path in files)


def test_progress_away_from_a_terminal_is_plain_lines(interview, caplog, monkeypatch):
    monkeypatch.setattr(predictor, "LINE_EVERY", 0.0)
    monkeypatch.setattr(logging.getLogger("fer_lightning"), "propagate", True)
    with caplog.at_level("INFO", logger="fer_lightning"), by_image() as server:
        interview(server, 3).ask(check=never)
    assert caplog.messages[0].startswith("asking maker/seer:7b at http://127.0.0.1:")
    assert caplog.messages[0].endswith("about 3 images; 0 were answered before")
    assert [line.split(",")[0] for line in caplog.messages[1:]] == [f"{n} of 3 images" for n in (1, 2, 3)]
    assert "images/s, " in caplog.messages[-1]


def test_on_a_terminal_a_bar_tells_the_rate(interview, monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(predictor, "console", screen)
    with by_image() as server:
        interview(server, 3).ask(check=never)
    shown = screen.file.getvalue()
    assert "images/s, 3 requests" in shown
    assert "3/3" in shown

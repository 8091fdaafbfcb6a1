import gzip
import itertools
import json
import math
import re
import socket
import threading
import time
from datetime import UTC, datetime

import numpy as np
import pytest
from omegaconf import OmegaConf

from fer_lightning.core.errors import FERError
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.llm import client as client_module
from fer_lightning.llm.client import (
    MAX_REPLY_BYTES,
    Client,
    Stopped,
    error_message,
    is_loopback,
    retry_after,
)
from fer_lightning.llm.replies import read_reply
from fer_lightning.llm.settings import LLMSettings
from tests.chat_server import HALF, HANG, HTML, Answer, ChatServer, RawServer, fail, say, seen
from tests.commands import ROOT

KEY = "sk-secret/0123456789abcdef"
IMAGE = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16

NODE = OmegaConf.to_container(OmegaConf.load(ROOT / "conf/predictor/llm.yaml"), resolve=False)["predictor"]
NODE |= {"model": "seer", "cache": "replies", "timeout": 10}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Remove the key, shorten waits, and set a broken proxy, which loopback must not use."""
    monkeypatch.setattr(client_module, "FIRST_WAIT", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def make_settings(**changes):
    return LLMSettings.from_config(NODE | changes)


def ask(server, **changes):
    """Ask about one image, and return the response."""
    client = Client(make_settings(base_url=server.url, **changes))
    try:
        return client.ask("Which emotion?", IMAGE)
    finally:
        client.close()


def always(answer):
    return ChatServer(lambda image, number: answer)


def first(*answers):
    """Give these answers, one per request, and then a valid one."""
    return ChatServer(lambda image, number: answers[number - 1] if number <= len(answers) else say("Sad"))


def test_default_prompt_is_that_of_the_paper():
    assert make_settings().question(EXPRESSIONS) == (
        "From the image provided, what emotion does the person in it seem to have? Your options to choose "
        "from are: angry, disgust, fear, happy, neutral, sad, and surprise. Keep your response to only the "
        "emotion you choose"
    )


def test_prompt_lists_the_classes_of_the_data():
    assert make_settings(prompt="{classes}?").question(["sad", "happy"]) == "sad and happy?"
    assert make_settings(prompt="{classes}").question(["sad"]) == "sad"
    assert make_settings(prompt='Reply {"label": ...}').question(["sad"]) == 'Reply {"label": ...}'


def test_request_contains_prompt_image_and_extra_keys(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    with always(say("Sad")) as server:
        response = ask(server, extra={"temperature": 0, "max_tokens": 5})
    [(path, headers, body)] = server.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["Content-Type"] == "application/json"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("seer", 0, 5)
    [message] = body["messages"]
    assert message["role"] == "user"
    assert message["content"][0] == {"type": "text", "text": "Which emotion?"}
    np.testing.assert_array_equal(seen(body), IMAGE)
    assert (response.failure, response.http_status, response.num_requests) == (None, 200, 1)
    assert response.body == say("Sad").body


def test_no_key_is_sent_without_one():
    with always(say("Sad")) as server:
        ask(server)
    assert "Authorization" not in server.requests[0][1]


def test_enlarge_makes_a_square_of_each_pixel():
    with always(say("Sad")) as server:
        ask(server, enlarge=3)
    np.testing.assert_array_equal(server.images[0], np.kron(IMAGE, np.ones((3, 3), np.uint8)))


@pytest.mark.parametrize(
    "answers",
    [
        [fail(500)],
        [fail(503), fail(502)],
        [fail(429)],
        [fail(408), fail(409)],
        [HANG],
        [Answer("Happy", cut_after=2)],
    ],
)
def test_transient_failure_is_retried(answers):
    with first(*answers) as server:
        response = ask(server, timeout=1.5)
    assert response.body == say("Sad").body
    assert response.num_requests == server.num_requests == len(answers) + 1


@pytest.mark.parametrize(
    ("answer", "failure", "status"),
    [
        (fail(500), "server_error", 500),
        (fail(429), "rate_limited", 429),
        (HANG, "timeout", None),
        (Answer("Happy", cut_after=2), "connection_error", None),
    ],
)
def test_persistent_failure_is_named_after_the_last_retry(answer, failure, status):
    with always(answer) as server:
        response = ask(server, max_retries=1, timeout=1.5)
    assert (response.failure, response.http_status, response.num_requests) == (failure, status, 2)
    assert server.num_requests == 2


@pytest.mark.parametrize("answer", [HTML, HALF, fail(400), fail(413), fail(422), say(None)])
def test_final_replies_are_not_retried(answer):
    with always(answer) as server:
        response = ask(server)
    assert server.num_requests == 1
    assert response.body == answer.body
    assert response.failure == (None if answer.status == 200 else "rejected")


def test_slow_reply_times_out():
    class Trickle(ChatServer):
        def _send(self, handler, answer):
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            while not self._ending.wait(0.05):
                handler.wfile.write(b" ")

    with Trickle(lambda image, number: say("Sad")) as server:
        started = time.monotonic()
        assert ask(server, timeout=0.4, max_retries=0).failure == "timeout"
        assert time.monotonic() - started < 5


def interim_responses():
    return itertools.repeat(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")


def trickling_header():
    yield b"HTTP/1.1 200 OK\r\nX-Slow: "
    yield from itertools.repeat(b"a")


def trickling_body():
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    yield from itertools.repeat(b" ")


def trickling_chunks():
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    yield from itertools.repeat(b"1\r\n \r\n")


TRICKLES = [interim_responses, trickling_header, trickling_body, trickling_chunks]


@pytest.mark.parametrize("pieces", TRICKLES)
def test_whatever_a_server_sends_slowly_ends_at_the_timeout(pieces):
    with RawServer(pieces) as server:
        started = time.monotonic()
        assert ask(server, timeout=0.4, max_retries=0).failure == "timeout"
    assert 0.3 < time.monotonic() - started < 5


@pytest.mark.parametrize("pieces", TRICKLES)
def test_a_stopped_run_waits_only_seconds_for_a_request(pieces, monkeypatch):
    monkeypatch.setattr(client_module, "LAST_SECONDS", 0.2)
    responses = []
    with RawServer(pieces) as server:
        client = Client(make_settings(base_url=server.url, timeout=600, max_retries=0))
        thread = threading.Thread(target=lambda: responses.append(client.ask("?", IMAGE)))
        thread.start()
        assert server.asked.wait(5)
        client.stop()
        thread.join(10)
        client.close()
    assert [response.failure for response in responses] == ["timeout"]


def packed_reply(text, times, coding):
    body = text.encode()
    for _ in range(times):
        body = gzip.compress(body)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n"
    return lambda: [head.encode() + body]


def test_a_packed_reply_is_unpacked_up_to_a_bound():
    with RawServer(packed_reply(say("Sad").body, 1, "gzip")) as server:
        assert ask(server).body == say("Sad").body
    with RawServer(packed_reply("a" * 50_000_000, 1, "gzip")) as server:
        assert len(ask(server).body) == MAX_REPLY_BYTES


def test_a_reply_packed_twice_is_not_unpacked():
    with RawServer(packed_reply("a" * 50_000_000, 2, "gzip, gzip")) as server:
        response = ask(server)
    assert len(response.body) < 10_000
    assert read_reply(response.body, ["sad"]).status == "invalid_json"


def test_endless_reply_is_truncated(monkeypatch):
    monkeypatch.setattr(client_module, "MAX_REPLY_BYTES", 1000)
    with always(Answer("x" * 10_000_000)) as server:
        assert len(ask(server).body) < 1_000_000


def test_retry_waits_as_long_as_retry_after():
    with first(fail(429, Retry_After="0.5")) as server:
        started = time.monotonic()
        ask(server)
        assert time.monotonic() - started >= 0.5


def test_retry_after_makes_all_threads_wait():
    times = []

    def behave(image, number):
        times.append(time.monotonic())
        return fail(429, Retry_After="0.5") if len(times) == 1 else say("Sad")

    with ChatServer(behave) as server:
        client = Client(make_settings(base_url=server.url))
        threads = [threading.Thread(target=client.ask, args=("?", IMAGE))]
        threads[0].start()
        while not client._not_before:
            time.sleep(0.01)
        threads.append(threading.Thread(target=client.ask, args=("?", IMAGE + 1)))
        threads[1].start()
        for thread in threads:
            thread.join()
        client.close()
    assert len(times) == 3
    assert min(times[1:]) - times[0] >= 0.45


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("7", 7),
        ("0.5", 0.5),
        ("-3", 0),
        ("86400", 60),
        ("Fri, 02 Jan 2026 03:04:15 GMT", 10),
        ("Fri, 02 Jan 2026 03:04:15 -0000", 10),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0),
        ("Sat, 03 Jan 2026 03:04:05 GMT", 60),
        ("Fri, 02 Jan 99999999999999999999999 03:04:15 GMT", 0),
        ("soon", 0),
        ("nan", 0),
        ("", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date_up_to_a_maximum(value, seconds):
    assert retry_after(value, now=NOW) == seconds


def test_waits_grow_up_to_a_maximum(monkeypatch):
    waits = []
    monkeypatch.setattr(Client, "_sleep", lambda self, seconds: waits.append(seconds))
    monkeypatch.setattr(client_module, "FIRST_WAIT", 0.5)
    with always(fail(500)) as server:
        ask(server, max_retries=10)
    for number, seconds in enumerate(waits):
        longest = min(0.5 * 2**number, 60)
        assert longest / 2 <= seconds <= longest
    assert len(waits) == 10


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (fail(401, "Incorrect key"), r"HTTP 401 \(Incorrect key\); \$OPENAI_API_KEY is not set"),
        (fail(403, "no"), r"HTTP 403 \(no\); \$OPENAI_API_KEY is not set"),
        (fail(402, "Insufficient Balance"), "HTTP 402 .*no credit"),
        (
            Answer('{"error": {"message": "quota", "code": "insufficient_quota"}}', 429),
            "HTTP 429 .quota.*no credit",
        ),
        (
            fail(404, "model 'seer' not found"),
            "HTTP 404 .*not found.*predictor.model=seer.*usually ends in /v1",
        ),
        (Answer("404 page not found", 404), "HTTP 404 .404 page not found.*usually ends in /v1"),
        (Answer("", 405), "HTTP 405 .no reason given.*usually ends in /v1"),
        (Answer("", 308, {"Location": "https://elsewhere"}), "HTTP 308 .*moved, correct predictor.base_url"),
    ],
)
def test_permanent_failure_ends_the_run_at_once(answer, message):
    with always(answer) as server, pytest.raises(FERError, match=message) as error:
        ask(server)
    assert server.num_requests == 1
    assert len(str(error.value).splitlines()) == 1


def test_forbidden_after_an_answer_concerns_one_image():
    with ChatServer(lambda image, number: say("Sad") if number == 1 else fail(403, "moderated")) as server:
        client = Client(make_settings(base_url=server.url))
        client.ask("?", IMAGE)
        response = client.ask("?", IMAGE)
        client.close()
    assert (response.failure, response.http_status, response.num_requests) == ("rejected", 403, 1)


def test_wrong_key_error_does_not_contain_the_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with (
        always(fail(401, f"Incorrect API key provided: {KEY}")) as server,
        pytest.raises(FERError, match="a key that the server rejects") as error,
    ):
        ask(server)
    assert KEY not in str(error.value)


def test_server_messages_are_made_printable():
    with always(fail(404, "\x1b[2Jcleared\r\n" + "x" * 1000)) as server, pytest.raises(FERError) as error:
        ask(server)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


def test_key_in_a_reply_is_redacted(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    escaped = KEY.replace("/", r"\/")
    with always(Answer(f'{{"echo": "Bearer {KEY}", "again": "{escaped}"}}')) as server:
        body = ask(server).body
    assert body == '{"echo": "Bearer ***", "again": "***"}'


def test_escaped_key_in_a_reply_is_redacted(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-with+plus/slash")
    for spelling in (r"sk-with\u002Bplus\u002fslash", r"sk-with\\u002bplus\/slash", "sk-with%2Bplus%2Fslash"):
        with always(Answer(f'{{"error": {{"message": "no such key: {spelling}"}}}}', 400)) as server:
            body = ask(server).body
        assert body == '{"error": {"message": "no such key: ***"}}'
        assert error_message(body) == "no such key: ***"


def test_short_dummy_key_is_not_redacted(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "seer")
    with always(say("the seer says sad")) as server:
        assert ask(server).body == say("the seer says sad").body


def test_missing_server_is_an_error_at_the_first_request():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    client = Client(make_settings(base_url=url))
    with pytest.raises(FERError, match=f"predictor.base_url={re.escape(url)}: no server answers there"):
        client.ask("?", IMAGE)
    assert client.num_requests == 1
    client.close()


def test_lost_server_is_a_transient_failure():
    with always(say("Sad")) as server:
        client = Client(make_settings(base_url=server.url, max_retries=1))
        client.ask("?", IMAGE)
    client._http.close()
    client._http = Client(client.settings)._http  # a new connection, which finds no server
    assert client.ask("?", IMAGE).failure == "connection_error"
    client.close()


def test_max_requests_is_exact_and_includes_retries():
    with always(fail(500)) as server:
        client = Client(make_settings(base_url=server.url, max_requests=4, max_retries=2))
        assert client.ask("?", IMAGE).num_requests == 3
        with pytest.raises(FERError, match="predictor.max_requests=4: used up"):
            client.ask("?", IMAGE)
        client.close()
    assert server.num_requests == client.num_requests == 4


def test_stop_ends_waiting_threads_and_further_requests(monkeypatch):
    monkeypatch.setattr(client_module, "FIRST_WAIT", 60)
    ended = []

    def work(client):
        try:
            client.ask("?", IMAGE)
        except Stopped:
            ended.append(True)

    with always(fail(500)) as server:
        client = Client(make_settings(base_url=server.url))
        thread = threading.Thread(target=work, args=(client,))
        thread.start()
        while not server.num_requests:
            time.sleep(0.01)
        client.stop()
        thread.join(5)
        with pytest.raises(Stopped):
            client.ask("?", IMAGE)
        client.close()
    assert ended
    assert server.num_requests == 1


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("0.0.0.0", True),
        ("api.openai.com", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
    ],
)
def test_is_loopback_knows_names_and_addresses(host, here):
    assert is_loopback(host) is here


def test_proxy_is_used_only_for_remote_servers(monkeypatch):
    for url, transports in (("http://127.0.0.1:1/v1", 0), ("https://api.openai.com/v1", 1)):
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        client = Client(make_settings(base_url=url))
        assert any(client._http._mounts.values()) == bool(transports)
        client.close()
    for name in ("ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "gopher://user:hidden@127.0.0.1:9")
    with pytest.raises(FERError, match="the proxy set in the environment cannot be used") as error:
        Client(make_settings(base_url="https://api.openai.com/v1"))
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ""}, "predictor.model='': expected a string"),
        ({"model": 4}, "predictor.model=4: expected a string"),
        ({"prompt": None}, "predictor.prompt=None: expected a string"),
        ({"base_url": "localhost:11434"}, "predictor.base_url=localhost:11434: expected a URL such as http"),
        ({"base_url": "ftp://a/v1"}, "predictor.base_url=ftp://a/v1: expected a URL such as http"),
        ({"base_url": "http://a:b/v1"}, "predictor.base_url=http://a:b/v1: not a URL"),
        ({"enlarge": 0}, "predictor.enlarge=0: expected a whole number from 1 to 32"),
        ({"enlarge": 1.5}, "predictor.enlarge=1.5: expected a whole number"),
        ({"concurrency": 0}, "predictor.concurrency=0"),
        ({"max_retries": -1}, "predictor.max_retries=-1"),
        ({"max_requests": 0}, "predictor.max_requests=0"),
        *(
            ({"timeout": value}, f"predictor.timeout={value}: expected a number of seconds above 0")
            for value in (0, -1, True, "9", None, 86_401, 1e10, math.inf, math.nan)
        ),
        ({"logprobs": True}, "predictor.logprobs=True: expected null or auto"),
        ({"structured": "json"}, "predictor.structured=json: expected null or label or probabilities"),
        ({"extra": [1]}, "predictor.extra: expected keys and values"),
        ({"extra": {"messages": []}}, "predictor.extra.messages: set by this program"),
        ({"cahce": "x"}, "predictor.cahce: unknown, expected one of model, base_url"),
    ],
)
def test_invalid_setting_is_named(changes, message):
    with pytest.raises(FERError) as error:
        make_settings(**changes)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "changes",
    [
        {"api_key": KEY},
        {"api_key_env": KEY},
        {"api_key_env": "gsk_0123456789abcdef"},
        {"base_url": f"http://user:{KEY}@127.0.0.1/v1"},
        {"base_url": f"http://127.0.0.1/v1?key={KEY}"},
        {"base_url": f"http://127.0.0.1/v1#{KEY}"},
        {"base_url": f"http://127.0.0.1/{KEY}/v1"},
        {"extra": {"api_key": KEY}},
        {"extra": {"user": KEY}},
        {"extra": {"extra_headers": {"Authorization": "Bearer gsk_1"}}},
        {"extra": {"routes": [{"x-api-key": "gsk_1"}]}},
        {"extra": {"metadata": {"user": " gsk_1"}}},
        {"extra": {"stop": [["gsk_1"]]}},
        {"model": KEY},
        {"prompt": f"use {KEY}"},
    ],
)
def test_key_in_the_config_is_refused_and_not_repeated(changes, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(FERError) as error:
        make_settings(**changes)
    assert not any(part in str(error.value) for part in (KEY, "secret", "gsk_"))


@pytest.mark.parametrize(
    "name",
    [
        *("access_token", "auth_token", "x-auth-token", "accessToken", "hub_token", "token", "auth_tokens"),
        *("apikey", "apiKey", "apikey_2", "api_key", "API_KEYS", "api_key_id", "api-key", "access_key_id"),
        *("bearer", "bearer_value", "credential", "credentials", "client_secret", "auth", "oauth", "Cookie"),
        *("Authorization", "password", "passwd"),
    ],
)
def test_name_of_a_secret_is_refused_at_any_depth(name):
    message = re.escape(f"{name}: looks like a key")
    for extra, above in (({name: 1}, ""), ({"a": [{"b": {name: {"c": 1}}}]}, r"a\.0\.b\.")):
        with pytest.raises(FERError, match=rf"^predictor\.extra\.{above}{message}"):
            make_settings(extra=extra)


@pytest.mark.parametrize("start", ["sk-", "sk-proj-", "gsk_", "hf_", "xai-", "Bearer ", "bearer "])
def test_value_that_looks_like_a_key_is_not_repeated(start):
    with pytest.raises(FERError, match=r"^predictor\.extra\.a\.0\.b: looks like a key") as error:
        make_settings(extra={"a": [{"b": f"{start}0123"}]})
    assert "0123" not in str(error.value)


def test_names_and_values_similar_to_keys_are_accepted():
    counts = ("max_tokens", "max_completion_tokens", "min_tokens", "reasoning_tokens", "top_k")
    tokens = {"stop_token_ids": [1], "skip_special_tokens": True, "eos_token": "</s>"}
    texts = {"prompt_cache_key": "faces", "author": "the bearer of sk-", "stop": ["ask-", "task-1", "shf_"]}
    extra = dict.fromkeys(counts, 5) | tokens | texts | {"options": {"keywords": [], "top_logprobs": 2}}
    assert make_settings(extra=extra).request_settings(EXPRESSIONS)["extra"] == extra


@pytest.mark.parametrize("timeout", [0.5, 86_400])
def test_timeout_may_be_half_a_second_or_a_day(timeout):
    with always(say("Sad")) as server:
        assert ask(server, timeout=timeout).failure is None


@pytest.mark.parametrize("key", ["sk-a b", "sk-a\nb", "sk-\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_key_that_no_header_can_hold_is_not_repeated(key, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(
        FERError, match="OPENAI_API_KEY: contains spaces or characters outside ASCII"
    ) as error:
        make_settings()
    assert "sk-" not in str(error.value)


def test_request_settings_contain_all_that_affects_answers():
    base = json.dumps(make_settings().request_settings(EXPRESSIONS), sort_keys=True)
    same = {"concurrency": 2, "timeout": 1, "max_retries": 0, "max_requests": 3, "cache": "c"}
    assert json.dumps(make_settings(**same).request_settings(EXPRESSIONS), sort_keys=True) == base
    for change in (
        {"model": "other"},
        {"base_url": "http://other/v1"},
        {"prompt": "?"},
        {"enlarge": 2},
        {"extra": {"temperature": 0}},
    ):
        assert json.dumps(make_settings(**change).request_settings(EXPRESSIONS), sort_keys=True) != base

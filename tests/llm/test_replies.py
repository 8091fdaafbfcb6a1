import errno
import json
import os
import subprocess
import sys

import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.llm.replies import Reply, read_answer, read_reply, tokens_used
from fer_lightning.llm.reply_file import ReplyFile
from tests.chat_server import HALF, HTML, choice, say
from tests.commands import ROOT

NAMED = [
    ("happy", "happy"),
    ("Happy.", "happy"),
    ("  SAD\n", "sad"),
    ("**Surprise**", "surprise"),
    ('"disgust"', "disgust"),
    ("“Fear”", "fear"),
    ("`neutral`!", "neutral"),
    ("__angry__", "angry"),
    ("- Angry", "angry"),
    ("# Sad", "sad"),
    ("Happiness", "happy"),
    ("Surprised", "surprise"),
    ("ANGER", "angry"),
    ("fearful", "fear"),
    ("Emotion: Sad", "sad"),
    ('{"emotion": "neutral"}', "neutral"),
    ('{"emotion":"sad', "sad"),  # the model itself ended here
    ('```json\n{"emotion": "sad"}\n```', "sad"),
    ('```json\n{"emotion": "sad"', "sad"),
    ('```JSON {"emotion": "sad"} ```', "sad"),
    ('Answer:\n\n```json5\r\n{"label": "fear"}\r\n```\n', "fear"),
    ("<think>Json?</think>```yaml\nemotion: angry\n```", "angry"),
    ("~~~text\nHappy\n~~~", "happy"),
    ("```\nHappy\n```", "happy"),
    ("```happy\n```", "happy"),
    ("The person in the image seems to be happy.", "happy"),
    ("The emotion is **fear**.", "fear"),
    ("Happy. Very happy!", "happy"),
    ("Sad \N{CRYING FACE}", "sad"),
    ("\N{FULLWIDTH LATIN CAPITAL LETTER S}ad", "sad"),
    ("<think>Angry? No, the mouth is open.</think>\n\nSurprise", "surprise"),
    ("It may be sad.</think>\n\nHappy", "happy"),
    ("<think>Sad? <think>Or</think> angry.</think> Fear", "fear"),
    ("afraid", "fear"),
    ("**Normal.**", "neutral"),
    ("The person's facial expression is most likely sadness.", "sad"),
    ("He looks very angry.", "angry"),
    ("It's a surprised woman", "surprise"),
    ("My final answer: disgust", "disgust"),
    ("From the image provided, the person seems to have a sad expression.", "sad"),
]
# Special tokens that servers leave in the text.
NAMED += [
    ("happy</s>", "happy"),
    ("<s> Happy </s>", "happy"),
    ("happy<|im_end|>", "happy"),
    ("<|im_start|>assistant\nhappy<|im_end|>", "happy"),
    ("happy<|im_end|>\n<|im_start|>user\nsad", "happy"),
    ("Happy<end_of_turn>", "happy"),
    ("<start_of_turn>model\nHappy<end_of_turn>\n", "happy"),
    ("happy<|eot_id|>", "happy"),
    ("<|start_header_id|>assistant<|end_header_id|>\n\nhappy<|eot_id|>", "happy"),
    ("happy<|endoftext|>", "happy"),
    ("happy<|end|><|endoftext|>", "happy"),
    ("happy<eos>", "happy"),
    ("happy <pad><pad>", "happy"),
    ("<|begin_of_text|>happy", "happy"),
    ("happy[/INST]", "happy"),
    ("happy<\uff5cend\u2581of\u2581sentence\uff5c>", "happy"),
    ("[THINK]Sad? No.[/THINK]happy", "happy"),
    ("<thinking>Sad?</thinking>\nhappy", "happy"),
    ("<|channel|>analysis<|message|>Sad?<|end|><|start|>assistant<|channel|>final<|message|>happy", "happy"),
    ("The emotion is happy.</s>", "happy"),
    ("</s>happy", "happy"),
]  # fmt: skip
UNANSWERED = [
    ("</s>", "empty"),
    ("<|im_end|>", "empty"),
    ("[THINK]happy", "empty"),
    ("<|channel|>analysis<|message|>happy", "empty"),
    ("happy, sad</s>", "two_labels"),
    ("I cannot say.<|im_end|>", "refusal"),
    ("", "empty"),
    (" \n\t", "empty"),
    ("<think>It may be sad</think>", "empty"),
    ("The eyes are wide.", "unparsable"),
    ("😀", "unparsable"),
    ("...", "unparsable"),
    ("unhappy", "unparsable"),
    ("contempt", "unparsable"),
    ("not angry", "unparsable"),
    ("The person isn't angry.", "unparsable"),
    ("The person isn\N{RIGHT SINGLE QUOTATION MARK}t sad", "unparsable"),
    ("anything but happy", "unparsable"),
    ("There is no fear in this face", "unparsable"),
    ("Neither of these; a lack of joy", "unparsable"),
    ("non-happy", "unparsable"),
    ("Happy? No.", "unparsable"),
    ("Is it\nnot\nsad", "unparsable"),
    ("I'm afraid this image is too small to tell.", "unparsable"),
    ("It is impossible to identify whether this person is angry.", "unparsable"),
    ("The image is too blurry to tell if this is fear.", "unparsable"),
    ("Unable to determine if the person is sad.", "unparsable"),
    ("This is a normal photo of a person who looks joyful.", "unparsable"),
    ("This is a normal photo of a person.", "unparsable"),
    ("The person looks afraid.", "unparsable"),
    ("There is zero fear", "unparsable"),
    ("Content moderation: identifying angry people is against policy", "unparsable"),
    ("Is the person happy?", "unparsable"),
    ("Happy to answer!", "unparsable"),
    ("Be happy", "unparsable"),
    ("sad</think>", "empty"),
    ("json", "unparsable"),
    ("```json\n```", "unparsable"),
    ('```json\n{"emotion": null}\n```', "unparsable"),
    ('```json\n{"emotion": "not sad"}\n```', "unparsable"),
    ('```python\nprint("sad")\n```', "unparsable"),
    ('{"emotion": "sa', "unparsable"),
    ("```text\nI'm sorry, I can't tell if this is fear.\n```", "refusal"),
    ("happy or sad", "two_labels"),
    ("Angry/Disgust", "two_labels"),
    ("not angry but sad", "two_labels"),
    ("angry, disgust, fear, happy, neutral, sad, and surprise", "two_labels"),
    ("I'm sorry, but I can't help with identifying emotions.", "refusal"),
    ("I\N{RIGHT SINGLE QUOTATION MARK}m unable to tell whether somebody is sad.", "refusal"),
    ("Sorry, no.", "refusal"),
    ("As an AI language model I do not see happy faces.", "refusal"),
    ("I cannot say if the person is angry or sad.", "refusal"),
]


@pytest.mark.parametrize(("text", "name"), NAMED)
def test_text_that_names_one_class_is_an_answer(text, name):
    assert read_answer(text, EXPRESSIONS) == Reply("ok", EXPRESSIONS.index(name))


@pytest.mark.parametrize(("text", "status"), UNANSWERED)
def test_other_texts_have_a_status_and_no_class(text, status):
    assert read_answer(text, EXPRESSIONS) == Reply(status, -1)


def test_answers_use_the_class_list_of_the_data():
    classes = ("not_happy", "happy", "Anger")
    assert read_answer("Not happy.", classes) == Reply("ok", 0)
    assert read_answer("It is a not-happy face", classes) == Reply("ok", 0)
    assert read_answer("angry", classes) == Reply("ok", 2)
    assert read_answer("sad", classes) == Reply("unparsable")
    assert read_answer("The face is normal", ("normal", "odd")) == Reply("ok", 0)


BODIES = [
    (say("Happy").body, "ok"),
    ("\ufeff" + say("Happy").body, "ok"),
    (say([{"type": "text", "text": "Happy"}]).body, "ok"),
    (say(None).body, "null_content"),
    (choice({"role": "assistant"}).body, "null_content"),
    (say("").body, "empty"),
    (say(7).body, "unparsable"),
    (say(None, "content_filter").body, "refusal"),
    (choice({"content": None, "refusal": "I can't."}).body, "refusal"),
    ('{"error": {"message": "filtered", "code": "content_filter"}}', "refusal"),
    ('{"error": {"message": "happy", "code": ["content_filter"]}}', "no_choices"),
    (say("Happy", "length").body, "ok"),
    (say("```text\nHappy", "length").body, "ok"),
    (say('```json\n{"emotion": "happy"}\n```').body, "ok"),
    (say('{"emotion": "happy').body, "ok"),
    (say('{"emotion": "happy', "length").body, "truncated"),  # a second one may have been to come
    (say('```json\n{"emotion": "happy"', "length").body, "truncated"),
    (say("The person looks happy, but", "length").body, "truncated"),
    (say("The person", "length").body, "truncated"),
    (say("<think>The corners of the mouth", "length").body, "truncated"),
    (say("", "length").body, "truncated"),
    (say(None, "length").body, "truncated"),
    (HTML.body, "html"),
    ("\n  <?xml version='1.0'?><Error/>", "html"),
    (HALF.body, "invalid_json"),
    ("", "invalid_json"),
    ("happy", "invalid_json"),
    ("[" * 100_000, "invalid_json"),
    ("null", "no_choices"),
    ("[]", "no_choices"),
    ('"happy"', "no_choices"),
    ('{"choices": []}', "no_choices"),
    ('{"choices": null}', "no_choices"),
    ('{"choices": ["happy"]}', "no_choices"),
    ('{"choices": [{"message": null}]}', "no_choices"),
    ('{"error": {"message": "happy"}}', "no_choices"),
]


@pytest.mark.parametrize(("body", "status"), BODIES, ids=range(len(BODIES)))
def test_any_body_of_a_server_is_parsed(body, status):
    reply = read_reply(body, EXPRESSIONS)
    assert reply.status == status
    assert reply.label == (EXPRESSIONS.index("happy") if status == "ok" else -1)


def test_only_replies_of_the_model_are_final():
    assert all(read_answer(text, EXPRESSIONS).is_final for text, _ in NAMED + UNANSWERED)
    for status in ("html", "invalid_json", "no_choices", "rejected", "timeout", "server_error"):
        assert not Reply(status).is_final


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (say("Sad").body, {"prompt": 85, "completion": 2}),
        ('{"usage": {"prompt_tokens": 3}}', {"prompt": 3}),
        ('{"usage": {"prompt_tokens": "many"}}', {}),
        ('{"usage": 4}', {}),
        ("[]", {}),
        ("<html>", {}),
        (None, {}),
    ],
)
def test_tokens_are_counted_if_the_server_reports_them(body, tokens):
    assert tokens_used(body) == tokens


def line(key, **more):
    return {"schema": 1, "key": key, "failure": None, "body": "é\n\u2028", **more}


def test_saved_records_are_read_and_the_last_of_an_image_counts(tmp_path):
    saved = ReplyFile(tmp_path / "deep/replies.jsonl")
    for one in (line("a"), line("b"), line("a", body="again")):
        saved.append(one)
    saved.close()
    again = ReplyFile(tmp_path / "deep/replies.jsonl")
    assert again.records == {"a": line("a", body="again"), "b": line("b")}
    again.close()
    assert len((tmp_path / "deep/replies.jsonl").read_bytes().splitlines()) == 3


def test_appended_record_is_on_the_disk(tmp_path):
    saved = ReplyFile(tmp_path / "replies.jsonl")
    saved.append(line("a"))
    assert json.loads((tmp_path / "replies.jsonl").read_bytes()) == line("a")
    saved.close()


@pytest.mark.parametrize("torn", [1, 20, -1])
def test_truncated_last_line_is_skipped(tmp_path, torn):
    path = tmp_path / "replies.jsonl"
    whole = [json.dumps(line(key), ensure_ascii=False).encode() for key in "ab"]
    path.write_bytes(whole[0] + b"\n" + whole[1][:torn])
    saved = ReplyFile(path)
    assert list(saved.records) == ["a"]
    saved.append(line("c"))
    saved.close()
    again = ReplyFile(path)
    assert list(again.records) == ["a", "c"]
    again.close()


def test_foreign_lines_are_skipped(tmp_path):
    path = tmp_path / "replies.jsonl"
    path.write_text(f'[]\n7\nnull\n{{"schema": 2}}\n\n{json.dumps(line("a"))}\n')
    saved = ReplyFile(path)
    assert list(saved.records) == ["a"]
    saved.close()


@pytest.mark.parametrize("missing", ["key", "failure", "body"])
def test_record_without_a_required_key_is_skipped(tmp_path, missing):
    path = tmp_path / "replies.jsonl"
    lacking = {name: value for name, value in line("b").items() if name != missing}
    path.write_text(
        "".join(f"{json.dumps(one)}\n" for one in (lacking, line(["c"]), line("d", body=None), line("a")))
    )
    saved = ReplyFile(path)
    assert list(saved.records) == ["a"]
    saved.close()


def test_undecodable_file_name_is_saved(tmp_path):
    path = tmp_path / "replies.jsonl"
    saved = ReplyFile(path)
    saved.append(line("a", id="caf\udce9.png"))
    saved.close()
    again = ReplyFile(path)
    assert again.records["a"]["id"] == "caf\udce9.png"
    again.close()


def test_reply_file_is_locked_by_one_process(tmp_path):
    saved = ReplyFile(tmp_path / "replies.jsonl")
    with pytest.raises(FERError, match="another process is asking the same question"):
        ReplyFile(tmp_path / "replies.jsonl")
    saved.close()
    ReplyFile(tmp_path / "replies.jsonl").close()


def test_unwritable_cache_is_an_error_at_opening(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FERError, match="cannot be written .*predictor.cache"):
        ReplyFile(tmp_path / "file/replies.jsonl")


def test_full_disk_is_an_error(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    saved = ReplyFile(tmp_path / "replies.jsonl")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FERError, match="a reply cannot be saved .No space left"):
        saved.append(line("a"))
    saved.close()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from fer_lightning.core.errors import FERError
from fer_lightning.llm.reply_file import ReplyFile

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit writes a part, then fails
LIMITS = resource.getrlimit(resource.RLIMIT_FSIZE)
path = Path(sys.argv[1])
line = lambda key: {"schema": 1, "key": key, "failure": None, "body": "x" * 100}


def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, LIMITS[1]))


def ask():
    saved = ReplyFile(path)
    try:
        saved.append(line("b"))
        saved.append(line("c"))
    finally:
        saved.close()


def report():
    try:
        ask()
    except FERError as error:
        print(error)


path.write_text(sys.argv[2])
limit(int(sys.argv[3]))
report()
report()
limit(LIMITS[0])
ask()
saved = ReplyFile(path)
print(*saved.records)
saved.close()
"""


@pytest.mark.parametrize(
    ("content", "size", "message"),
    [
        (line("a"), 200, "a reply cannot be saved (File too large)"),  # a part of "b" can be written
        (line("a"), 350, "a reply cannot be saved (File too large)"),  # a part of "c" can be written
        ("torn", 4, "cannot be written (File too large); choose another predictor.cache"),
    ],
)
def test_disk_that_fills_damages_no_line_and_frees_the_lock(tmp_path, content, size, message):
    path = tmp_path / "replies.jsonl"
    text = content if content == "torn" else f"{json.dumps(content)}\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL_DISK, path, text, str(size)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    kept = "b c" if content == "torn" else "a b c"
    assert done.stdout.splitlines() == [f"{path}: {message}"] * 2 + [kept]
    whole = [json.loads(row)["key"] for row in path.read_text().splitlines() if row != "torn"]
    assert set(whole) == set(kept.split())

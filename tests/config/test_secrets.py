import html
import json
from urllib.parse import quote

import pytest

from fer_lightning.config.secrets import check_no_secrets, secret_pattern
from fer_lightning.core.errors import FERError

KEY = "sk-a+b/c=d\\e9"


def escaped(sign):
    return f"\\u{ord(sign):04X}"


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        json.dumps(KEY),
        json.dumps(json.dumps(KEY)),
        "".join(map(escaped, KEY)),
        KEY.replace("+", "\\u002B").replace("/", "\\/"),
        KEY.replace("\\", "\\\\").replace("+", "\\\\u002b"),
        quote(KEY, safe=""),
        quote(quote(KEY, safe=""), safe=""),
        html.escape(KEY).replace("+", "&#43;").replace("=", "&#x3D;"),
    ],
)
def test_a_secret_is_found_however_it_is_escaped(text):
    assert secret_pattern(KEY).sub("***", f"no such key: {text}.").strip('"\\.').endswith("***")


def test_other_texts_are_left_alone():
    text = "sk-a+b/c=d\\e8, sk-a b/c=d"
    assert secret_pattern(KEY).sub("***", text) == text


def test_a_long_text_of_backslashes_takes_no_time():
    assert secret_pattern(KEY).search("\\" * 200_000) is None


@pytest.mark.parametrize(
    ("config", "texts"),
    [
        ({"logger": {"wandb": {"notes": "sk-1234567890"}}}, []),
        ({"run_dir": "runs/sk-1234567890/a"}, []),
        ({"data": {"classes": ["a", "sk-1234567890"]}}, []),
        ({}, ["hydra.run.dir=sk-1234567890"]),
        ({}, ["+logger.wandb.notes=${oc.env:MY_API_KEY}"]),
        ({}, ["+logger.wandb.notes=${ oc.env:MY_API_KEY,none}"]),
        ({}, ['+logger.wandb.notes=${oc.env:"MY_API_KEY"}']),
    ],
)
def test_a_setting_that_holds_a_secret_is_refused_without_its_value(config, texts, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "sk-1234567890")
    with pytest.raises(FERError, match=r"holds the value of \$MY_API_KEY") as caught:
        check_no_secrets(config, texts)
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["GITHUB_PAT", "DB_PASS", "HF_TOKEN_READ", "MY_PASSWORD", "PGPWD_PWD", "AWS_SECRET_ACCESS_KEY"]
)
def test_variables_of_many_names_are_secrets(name, monkeypatch):
    monkeypatch.setenv(name, "correcthorse")
    for config, texts in (({"notes": "my correcthorse"}, []), ({}, [f"notes=${{oc.env:{name}}}"])):
        with pytest.raises(FERError, match=rf"notes: holds the value of \${name}"):
            check_no_secrets(config, texts)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATA_ROOT", "faces12345"),
        ("MY_API_KEY", "localhost"),
        ("MY_API_KEY", "key1"),
        ("SSH_AUTH_SOCK", "/tmp/agent.1234"),
        ("MAX_TOKENS", "12345678"),
    ],
)
def test_ordinary_values_of_the_environment_are_accepted(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    check_no_secrets({"data": {"root": value}}, [f"data.root={value}"])
    check_no_secrets({}, [f"notes=${{oc.env:{name}}}"] if "KEY" not in name and "AUTH" not in name else [])

"""Secrets: no setting holds one, since settings are written to files."""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from fer_lightning.config.compare import flatten
from fer_lightning.core.errors import FERError

# Names of secrets. Not among them are prompt_cache_key of OpenAI, numbers of tokens (max_tokens), and special
# tokens of the vocabulary (eos_token).
SECRET_NAME = re.compile(
    r"(?<!prompt_cache_)keys?$|(?:api|access|private)[-_ ]?key|secret|passw|passphrase|credential|bearer"
    r"|cookie|authorization|(?<![a-z])o?auth(?![a-z])|(?:access|auth|api)[-_ ]?tokens?$"
    r"|(?<!bos_)(?<!eos_)(?<!pad_)(?<!unk_)(?<!stop_)token$",
    re.IGNORECASE,
)
# How keys begin: OpenAI and many others, Groq, Hugging Face, xAI, NVIDIA, Perplexity, Google.
KEY_VALUE = re.compile(r"\s*(?:sk-|gsk_|hf_|xai-|nvapi-|pplx-|AIza|(?i:bearer\s))")
# Shorter keys are no secrets: local servers accept dummy keys such as "ollama", which occur in other texts.
MIN_KEY_LENGTH = 8

# Names of environment variables, which say less: DB_PASS, GITHUB_PAT, HF_TOKEN_READ.
_SECRET_VARIABLE = re.compile(
    rf"{SECRET_NAME.pattern}|token(?!s|izer)|(?:^|_)(?:pass|pwd|pat|pw)(?:$|_)", re.IGNORECASE
)
_FROM_ENVIRONMENT = re.compile(r"\$\{\s*oc\.env:\s*[\"']?(\w+)")


def secret_pattern(secret: str) -> re.Pattern[str]:
    r"""Return a pattern that finds a secret in a text, also where some of its characters are escaped.

    The escapes are those of JSON (also twice), URLs and HTML: ``\u002b``, ``\/``, ``%2B``, ``&#43;``.
    """

    def forms(sign: str) -> str:
        code = ord(sign)
        return (
            rf"(?:\\{{0,4}}{re.escape(sign)}|\\{{1,4}}u(?i:{code:04x})|\\{{1,4}}x(?i:{code:02x})"
            rf"|%(?:25){{0,2}}(?i:{code:02x})|&(?:amp;)?#(?:0{{0,4}}{code}|(?i:x0{{0,4}}{code:x}));)"
        )

    return re.compile("".join(map(forms, secret)))


def check_no_secrets(config: Mapping[str, Any], texts: Iterable[str] = ()) -> None:
    """Refuse settings that hold the value of an environment variable that is named like a secret.

    Args:
        config: Plain and resolved.
        texts: Further texts that are written to files, such as overrides.

    Raises:
        FERError: With the setting and the variable, without the value.
    """
    for text in texts:
        for name in _FROM_ENVIRONMENT.findall(text):
            if _SECRET_VARIABLE.search(name):
                raise _refused(text.partition("=")[0], name)
    secrets = {
        name: value
        for name, value in os.environ.items()
        if _SECRET_VARIABLE.search(name) and _may_be_secret(value)
    }
    if not secrets:
        return
    settings = [(key, str(value)) for key, value in flatten(config).items()]
    settings += [(text.partition("=")[0], text) for text in texts]
    for key, value in settings:
        for name, secret in secrets.items():
            if secret in value:
                raise _refused(key, name)


def _may_be_secret(value: str) -> bool:
    """Return whether a value may be a key or a password: not a path, and no dummy key of a local server."""
    return len(value) >= MIN_KEY_LENGTH and value != "localhost" and not value.startswith(("/", "."))


def _refused(key: str, name: str) -> FERError:
    return FERError(
        f"{key}: holds the value of ${name}, which is named like a secret and would be written to files; "
        "leave it out"
    )

"""What is secret is taken out, and ordinary words are left."""

import logging
import sys

import pytest

from loratlas.redaction import RedactedFormatter, redacted

ENVIRONMENT = {
    "WANDB_API_KEY": "abcdef0123",
    "HF_TOKEN": "opaque-value",
    "PGPASSWORD": "hunter22",
    "USE_TOKEN": "true",
    "HOME": "digest",
    "GIT_AUTHOR_NAME": "somebody",
    "TOKENIZERS_PARALLELISM": "parallel",
}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("the key abcdef0123 is wrong", "the key *** is wrong"),
        ("401: opaque-value", "401: ***"),
        ("user me, password hunter22", "user me, password ***"),
        ("GET https://me:word@host/x?token=abc&y=1", "GET https://***@host/x?token=***&y=1"),
        ("http://localhost:7860/?write_token=abc", "http://localhost:7860/?write_token=***"),
        ("postgresql://me:p@ss@db/x", "postgresql://***@db/x"),
        ("Authorization: Bearer a.b-c", "Authorization: Bearer ***"),
        ("{'authorization: token a.b-c'}", "{'authorization: token ***"),
        ("password=x1 api_key=x2", "password=*** api_key=***"),
        ("hf_abcdefghijkl", "***"),
        ("wandb_v1_0123456789", "***"),
        ("ghp_0123456789abcdefghij", "***"),
    ],
)
def test_secrets_are_taken_out(text, left):
    assert redacted(text, ENVIRONMENT) == left


@pytest.mark.parametrize(
    "text",
    [
        "true is not 1",
        "the digest " + "0" * 64,
        "gpt2 at revision " + "0123456789" * 4,
        "set pad_token=eos_token",
        "somebody runs in parallel",
        "https://example.org/a@b is no login",
        "exact_match_hf_evaluate",
    ],
)
def test_ordinary_words_are_left(text):
    assert redacted(text, ENVIRONMENT) == text


def test_a_secret_within_a_secret():
    assert redacted("abcdefghi", {"A_KEY": "abcdef", "B_KEY": "abcdefghi"}) == "***"


def test_what_is_logged_has_no_secret_and_is_not_obeyed(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "opaque-value")
    try:
        raise ValueError("sent opaque-value\x1b[2J")
    except ValueError:
        raised = sys.exc_info()
    record = logging.LogRecord("loratlas", logging.ERROR, "", 1, "trial %s", ("x\u202e",), raised)
    lines = RedactedFormatter("%(levelname)s: %(message)s").format(record)
    assert lines.startswith("ERROR: trial x\\u202e\nTraceback")
    assert lines.endswith("ValueError: sent ***\\x1b[2J")

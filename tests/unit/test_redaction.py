"""What may be shown of URLs, options and other people's texts: everything but what gives access."""

from __future__ import annotations

import json
import re
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from framefleet import JobError, Store
from framefleet.pipeline.guards.redaction import (
    check_url,
    is_secret_name,
    keep_secrets,
    public_text,
    public_url,
    public_value,
)
from framefleet.pipeline.rows.inputs.roots import Roots
from framefleet.pipeline.rows.tables.table import open_table


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("prompts/a?b@c.csv", "prompts/a?b@c.csv"),
        ("s3://bucket/run@7/x", "s3://bucket/run@7/x"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("https://[::1]:80/a@b", "https://[::1]:80/a@b"),
        ("https://token@host/x", "https://host/x"),
        ("https://me:pa55word@host:80/x?sig=abc", "https://host:80/x"),
        ("simplecache::s3://me:pa55word@bucket/x", "simplecache::s3://bucket/x"),
        ("ftp://me:pa@55@host/x", "ftp://host/x"),
        ("ftp://me:pa/55@host/x", "ftp://host/x"),
        ("ftp://me:pa#55?word@host/x", "ftp://host/x"),
        ("ftp://me:p@5/5@host/x", "ftp://host/x"),
        ("az://box/x?sv=1&sig=abc", "az://box/x"),
        ("s3://bucket/x?X-Amz-Signature=abc", "s3://bucket/x"),
        ("s3://bucket/who_am_i?.png", "s3://bucket/who_am_i?.png"),
    ],
)
def test_a_url_is_shown_without_user_password_and_query(url: str, shown: str) -> None:
    assert public_url(url) == shown
    assert public_text(f"could not open {url!r}: no") == f"could not open {shown!r}: no"


@pytest.mark.parametrize("url", ["ftp://me:pa/55@host/x", "ftp://me:pa#5@host/x", "https://me:pa@host/a@b"])
def test_a_password_whose_end_is_not_clear_is_refused_where_it_enters(url: str) -> None:
    for enter in (check_url, Store, open_table, lambda url: Roots([url])):
        with pytest.raises(JobError) as caught:
            enter(url)
        assert "storage_options" in caught.value.fix
        assert "pa" not in str(caught.value).partition("password")[0]


def test_an_output_with_a_query_is_refused_without_showing_it() -> None:
    with pytest.raises(JobError, match=r"https://host/run has a query") as caught:
        Store("https://host/run?sig=abcdefgh")
    assert "abcdefgh" not in str(caught.value)


NAMES = (
    "secret AWS_SECRET_ACCESS_KEY key accountKey sas_token X-Amz-Signature Authorization connection_string"
)
MISSPELT = "secrt passwrod tokn storage_optons.secret"


@pytest.mark.parametrize(
    "name",
    [
        "prompt",
        "keyframe_model",
        "tokenizer",
        "author",
        "endpoint_url",
        "region_name",
        "num_frames",
        "api_key_env",
        "max_tokens",
        "maxOutputTokens",
        "thinking_budget_tokens",
    ],
)
def test_a_secret_is_known_by_its_name_also_misspelt(name: str) -> None:
    assert not is_secret_name(name)
    assert all(is_secret_name(secret) for secret in f"{NAMES} {MISSPELT}".split())


def test_what_a_process_was_told_is_hidden_in_every_text() -> None:
    options = {"secret": "hidden-one", "client_kwargs": {"headers": {"Cookie": "hidden-two"}}}
    table = "https://me:hidden%2Fthree@host/t.csv?X-Amz-Signature=hidden-four&size=16x64x64"
    keep_secrets({"storage_options": options, "table": table, "fleet": {"workers": 2}})
    said = "hidden-one hidden-two hidden%2Fthree hidden/three hidden-four 16x64x64"
    assert public_text(said) == "*** *** *** *** *** 16x64x64"


WRITTEN: list[Callable[[str], str]] = [
    *(str, repr, json.dumps, quote),
    lambda secret: b64encode(f"user:{secret}".encode()).decode(),
    lambda secret: urlsafe_b64encode(f"me:{secret}:more".encode()).decode(),
    lambda secret: b64encode(f"{secret} and more".encode()).decode(),
    lambda secret: json.dumps(json.dumps({"a": secret})),
    lambda secret: re.sub("%..", lambda code: code[0].lower(), quote(secret, safe="")),
    lambda secret: secret.encode().hex(),
]


@pytest.mark.parametrize("secret", ["hunter2-of-the-chat", "p@ss w%rd+&=/", "ключ-секрет", 'a"b\\c\n<d>&e'])
@pytest.mark.parametrize("write", WRITTEN)
def test_secrets_are_hidden_as_libraries_write_them(secret: str, write: Callable[[str], str]) -> None:
    keep_secrets({"password": secret})
    shown = public_text(write(secret))
    assert "***" in shown
    assert len(shown) <= len(write("")) + len("***") + 6, "what is around it, and characters that are of both"


def test_secrets_of_variables_are_hidden_not_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of-the-environment\n")
    monkeypatch.setenv("SOME_TOKEN_FILE", str(tmp_path))
    said = "Illegal header value b'Bearer hf_of-the-environment'"
    assert public_text(said) == "Illegal header value b'Bearer ***'"
    assert public_text(str(tmp_path)) == str(tmp_path)
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "AWS_WEB_IDENTITY_TOKEN_FILE", "HF_TOKEN_PATH"):
        monkeypatch.setenv(name, "/gone/key.json")
        assert public_text("no /gone/key.json") == "no /gone/key.json"


def test_values_of_a_job_are_shown_without_their_secrets() -> None:
    given = {"a": {"secret": "abc"}, "tables": ["s3://me:pa@b/x"], "workers": 2}
    assert public_value(given) == {"a": {"secret": "***"}, "tables": ["s3://b/x"], "workers": 2}


@pytest.mark.parametrize("text", ["://a:b" * 200_000, "a" * 500_000 + "://" + ":" * 500_000])
def test_no_text_takes_long(text: str) -> None:
    started = time.thread_time()
    public_text(text)
    assert time.thread_time() - started < 60, "a text of which each character is looked at again takes hours"

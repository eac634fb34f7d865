"""What comes from an endpoint, and what goes to it: answers are anybody's, and keys go nowhere else."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from framefleet.pipeline.errors import EndpointError, JobError
from framefleet.plugins.notify.on_end import send_request
from framefleet.plugins.words.endpoint import NoAnswer, ask
from framefleet.plugins.words.section import AnswerSection, EndpointSection
from tests.chat_server import Chat

KEY = 'sk-"of the test"/0123456789'
SCORE = AnswerSection(number=[0, 10])


@pytest.fixture(autouse=True)
def key(at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)


def section(chat: Chat, **more: Any) -> EndpointSection:
    return EndpointSection.model_validate(
        {"url": chat.url, "model": "m", "question": "?", "attempts": 1, **more}
    )


def answered(text: str) -> dict[str, Any]:
    return {"content": json.dumps({"answer": text})}


HUGE = "9" * 400
ANSWERS = {
    "huge": {"content": f'{{"answer": {HUGE}}}'},
    "infinite": {"content": '{"answer": 1e999}'},
    "true": {"content": '{"answer": true}'},
    "a list": {"content": "[7]"},
    "a number": {"raw": HUGE},
    "choices in a mapping": {"raw": '{"choices": {"0": 1}}'},
    "nested": {"content": '{"answer":' * 50_000},
    "no text": {"raw": '{"choices": [{"message": {"content": 7}}]}'},
}
TEXTS = {
    "blank": answered(" \n"),
    "no text": {"content": '{"answer": ["a"]}'},
    "half a character": answered("a \ud800 fox"),
    "longer than a cell": answered("雨" * 30_000),
    "4 MB": answered("a" * (4 << 20)),
    "the key": answered(f"a fox, {KEY}"),
    "the key in JSON": answered(json.dumps({"key": KEY})),
    "the key in base64": answered("QmVhcmVyIHNrLSJvZiB0aGUgdGVzdCIvMDEyMzQ1Njc4OQ=="),
    "packed": {"headers": {"Content-Encoding": "gzip"}, "raw": gzip.compress(b"{}").decode("latin-1")},
}


@pytest.mark.parametrize("form", [SCORE, None], ids=["number", "text"])
def test_an_answer_of_another_form_is_none(form: AnswerSection | None, chat: Chat) -> None:
    keyed = section(chat, api_key_env="JUDGE_KEY")
    for name, mood in (ANSWERS if form else TEXTS).items():
        chat.will(mood)
        with pytest.raises(NoAnswer) as refused:
            ask(keyed, "?", form)
        assert KEY not in str(refused.value) and len(str(refused.value)) <= 300, name
    assert ask(keyed, "?", form)


@pytest.mark.parametrize(
    "usage",
    [
        *({"prompt_tokens": number, "completion_tokens": 1} for number in (HUGE, -1, 1.5, True, None)),
        *([], 7, None, {"prompt_tokens": int(HUGE), "completion_tokens": int(HUGE)}),
    ],
    ids=lambda usage: str(usage)[:40],
)
def test_what_a_response_says_of_tokens_is_checked(usage: Any, chat: Chat) -> None:
    chat.will({"more": {"usage": usage}, "always": True})
    price = {"input": 1.0, "output": 1.0}
    assert ask(section(chat, price=price), "?")
    with pytest.raises(EndpointError, match="does not say how many tokens it used"):
        ask(section(chat, price=price, max_cost=5.0), "?")


@pytest.mark.parametrize("later", ["nan", "-1", "1e999", HUGE, "soon", "Mon, 01 Jan 0001 00:00:00 GMT", ""])
def test_any_word_about_when_to_come_again_is_taken(later: str, chat: Chat) -> None:
    chat.will({"status": 503, "headers": {"Retry-After": later}})
    try:
        assert ask(section(chat, attempts=2), "?")
    except NoAnswer as error:  # it wants to be left alone for longer than anybody waits
        assert float(later) > 120, error


def test_an_endpoint_that_answers_nobody_is_at_fault_itself(chat: Chat) -> None:
    for mood, fix in (
        ({"status": 401}, "the key"),
        ({"status": 500}, "run again"),
        ({"raw": "<html>"}, "JSON schema"),
        ({"status": 400}, "`options`"),
    ):
        chat.will({**mood, "always": True})
        with pytest.raises(EndpointError) as refused:
            ask(section(chat), [{"type": "text", "text": "?"}])
        assert fix in refused.value.fix
    assert [one["body"]["messages"][0]["content"][0]["text"] for one in chat.log[:2]] == [
        "?",
        "Give any answer.",
    ]


def test_a_model_that_answers_no_trial_is_there_while_it_answers_what_it_has_answered(chat: Chat) -> None:
    assert ask(section(chat), "red?")
    chat.will(*({"for": text, "status": 500} for text in ("blue", "Give any answer")))
    with pytest.raises(NoAnswer):
        ask(section(chat), "blue?")
    assert [one["body"]["messages"][0]["content"] for one in chat.log][2:] == ["Give any answer.", "red?"]
    chat.will({"status": 500, "always": True})
    with pytest.raises(EndpointError):
        ask(section(chat), "blue?")


def test_passwords_of_netrc_go_to_nobody(chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password of-another\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    ask(section(chat), "?")
    ask(section(chat, api_key_env="JUDGE_KEY"), "?")
    assert [one["key"] for one in chat.log] == [None, f"Bearer {KEY}"]
    chat.will({"status": 200})
    send_request(f"{chat.url}/hook", json.dumps({"messages": []}).encode())
    assert chat.log[-1]["key"] is None


def test_a_proxy_of_the_environment_is_used(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    far = section(chat, url="http://judge.invalid/v1", timeout_s=5)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", chat.url.removesuffix("/v1"))
    assert ask(far, "?")
    assert chat.log[0]["path"] == "http://judge.invalid/v1/chat/completions"
    for proxy, excepted in (("nonsense", ""), ("http://127.0.0.1:99999", ""), (chat.url, "judge.invalid")):
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", excepted)
        with pytest.raises(EndpointError, match=r"m at judge\.invalid"):
            ask(far, "?")


def test_a_key_that_no_request_can_hold_is_refused(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-of-the\ntest")
    with pytest.raises(JobError, match="JUDGE_KEY has control characters") as refused:
        ask(section(chat, api_key_env="JUDGE_KEY"), "?")
    assert "sk-of" not in str(refused.value)

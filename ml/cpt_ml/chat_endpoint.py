"""An OpenAI-compatible chat endpoint: one question, one answer, and the patience for its bad days.

Configured by the environment of the worker: CPT_LABEL_URL (up to and with /v1), CPT_LABEL_KEY (where it wants one) and
CPT_LABEL_CONCURRENCY. The key goes into a header and nowhere else.
"""

from __future__ import annotations

import email.utils
import json
import os
import threading
import time
from dataclasses import dataclass
from typing import Any

import httpx

from cpt_ml.errors import BadRequest, JobFailure, TryAgain
from cpt_ml.store import Json

TRIES = 8
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 120.0
TIMEOUT = httpx.Timeout(120.0, connect=10.0)
MAX_BODY_BYTES = 1 << 20
MAX_ANSWER_TOKENS = 64
PASSING = (408, 409, 425, 429)


class QuestionRefused(Exception):
    """The endpoint refuses this question, not the others: too long, or against its rules."""

    def __init__(self, status: int) -> None:
        super().__init__(f"http-{status}")
        self.status = status


class Interrupted(Exception):
    """The job leaves; the question has no answer."""


@dataclass(frozen=True)
class Settings:
    """Where the endpoint is; `key` is empty where it wants none."""

    url: str
    key: str
    concurrency: int


@dataclass(frozen=True)
class Answer:
    """What the model said, None where the body was no answer; tokens are 0 where the endpoint does not count them."""

    text: str | None
    prompt_tokens: int
    completion_tokens: int
    retries: int


def settings() -> Settings:
    """The endpoint of the environment. Raises BadRequest where there is none."""
    url = os.environ.get("CPT_LABEL_URL", "").rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise BadRequest(
            "label-topics: the worker's configuration names no endpoint; set CPT_LABEL_URL to an OpenAI-compatible"
            " address such as https://host/v1 (and CPT_LABEL_KEY where it wants a key), restart the worker and retry"
        )
    number = os.environ.get("CPT_LABEL_CONCURRENCY", "4")
    if not number.isdigit() or not 1 <= int(number) <= 256:
        raise BadRequest(f"label-topics: CPT_LABEL_CONCURRENCY is {number[:20]!r}, expected 1 to 256")
    return Settings(url, os.environ.get("CPT_LABEL_KEY", ""), int(number))


class ChatEndpoint:
    """Asks one model; safe to use from several threads. A context manager."""

    def __init__(self, at: Settings, model: str) -> None:
        self.model = model
        self._url = f"{at.url}/chat/completions"
        # no proxy of the environment, no redirect: the key goes where the configuration says
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {at.key}"} if at.key else {},
            timeout=TIMEOUT,
            trust_env=False,
            limits=httpx.Limits(max_connections=at.concurrency),
        )
        self.leaving = threading.Event()

    def __enter__(self) -> ChatEndpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.leaving.set()
        self._client.close()

    def ask(self, messages: list[Json], schema: Json) -> Answer:
        """The answer to a question whose form is a JSON schema.

        Raises QuestionRefused; JobFailure (NotPermitted), BadRequest where every question would fail; TryAgain when
        patience is over; Interrupted when the job leaves.
        """
        body = {
            "model": self.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": MAX_ANSWER_TOKENS,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "label", "strict": True, "schema": schema},
            },
        }
        trouble = ""
        for tries in range(TRIES):
            wait = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**tries)
            try:
                status, headers, data = self._post(body)
            except httpx.TransportError as e:
                trouble = e.__class__.__name__
            else:
                if status == 200:
                    return answer_of(data, tries)
                self._refuse(status)
                trouble = f"HTTP {status}"
                wait = asked_to_wait(headers.get("Retry-After"), wait)
            if tries + 1 < TRIES and self.leaving.wait(wait):
                break
        if self.leaving.is_set():
            raise Interrupted
        raise TryAgain(f"label-topics: the endpoint of CPT_LABEL_URL did not answer in {TRIES} tries: {trouble}")

    def _post(self, body: Json) -> tuple[int, httpx.Headers, bytes]:
        with self._client.stream("POST", self._url, json=body) as response:
            data = b""
            for part in response.iter_bytes():
                data += part
                if len(data) > MAX_BODY_BYTES:
                    break
            return response.status_code, response.headers, data

    def _refuse(self, status: int) -> None:
        """Raises what trying again cannot mend."""
        if status in (401, 403):
            message = f"label-topics: the endpoint answers {status}: CPT_LABEL_KEY is missing, wrong or not allowed"
            raise JobFailure(f"{message} to use {self.model}", "NotPermitted")
        if status < 400 or status in (404, 405):
            raise BadRequest(
                f"label-topics: the endpoint answers {status} to POST <CPT_LABEL_URL>/chat/completions;"
                f" expected an address that ends before /chat/completions and serves the model {self.model}"
            )
        if status < 500 and status not in PASSING:
            raise QuestionRefused(status)


def asked_to_wait(header: str | None, otherwise: float) -> float:
    """Seconds that Retry-After asks for (a number, or a date), within bounds."""
    if header is None:
        return otherwise
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return otherwise
    # also of no number
    return min(LONGEST_WAIT_SECONDS, seconds) if seconds >= 0 else 0.0


def answer_of(data: bytes, retries: int) -> Answer:
    """The answer in a body of the chat protocol; without text where it is none."""
    try:
        body: Any = json.loads(data)
        usage: Any = body.get("usage") or {}
        prompt, completion = (count_of(usage.get(f"{of}_tokens")) for of in ("prompt", "completion"))
        text = body["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Answer(None, 0, 0, retries)
    return Answer(text if isinstance(text, str) else None, prompt, completion, retries)


def count_of(value: object) -> int:
    """A number of tokens, 0 for what is none."""
    return value if isinstance(value, int) and value >= 0 else 0

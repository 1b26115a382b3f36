"""A chat model behind an OpenAI-compatible endpoint: retries, a cache, limits, an account."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pellucid.core.errors import ConfigError, DataError
from pellucid.core.files import write_text

_RETRIED = frozenset((408, 409, 429, 500, 502, 503, 504))


@dataclass(slots=True, kw_only=True)
class Account:
    """What a judge's answers cost.

    Attributes:
        requests: sent, retries included.
        cached: answers taken from the cache.
        unreadable: replies that were not in the form asked for.
        prompt_tokens, completion_tokens: as the endpoint counts them.
    """

    requests: int = 0
    cached: int = 0
    unreadable: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ChatEndpoint:
    """Asks a model behind `URL/chat/completions`.

    Args:
        url: of the API, up to `/v1`.
        model: its name there.
        cache: a folder; each reply is kept under the hash of its request. None for no cache.
        key: sent as a bearer token; None for none.
        retries: after the first try, on busy or failing servers.
        wait: seconds before the first retry; it doubles.
        timeout: seconds for a reply.
        most: requests that may be sent in all, retries included; None for no limit.

    Raises:
        ConfigError: the URL is not one of http or https.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        cache: Path | None = None,
        key: str | None = None,
        retries: int = 4,
        wait: float = 1.0,
        timeout: float = 60.0,
        most: int | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"the judge's URL is {url!r}; write one such as https://host/v1")
        self.account = Account()
        self._url, self._model, self._cache = url.rstrip("/"), model, cache
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._retries, self._wait, self._timeout = retries, wait, timeout
        self._most = most

    @property
    def exhausted(self) -> bool:
        """Whether as many requests were sent as may be."""
        return self._most is not None and self.account.requests >= self._most

    def to_json(self) -> dict[str, Any]:
        """URL, model and account; never the key."""
        return {"url": self._url, "model": self._model, **asdict(self.account)}

    def ask(self, instruction: str, material: Mapping[str, Any]) -> str | None:
        """What the model replies; None when it would take a request more than may be sent.

        Args:
            instruction: the system message.
            material: what to judge, sent as JSON.

        Raises:
            DataError: the endpoint cannot be reached or refuses.
        """
        messages: Sequence[Mapping[str, str]] = [
            {"role": "system", "content": instruction},
            {"role": "user", "content": json.dumps(dict(material))},
        ]
        return self._kept({"model": self._model, "temperature": 0, "messages": messages})

    def _kept(self, request: Mapping[str, Any]) -> str | None:
        """The reply to a request, from the cache if it is there."""
        if self._cache is None:
            return self._reply(request)
        whole = json.dumps({"url": self._url, **request}, sort_keys=True)
        path = self._cache / f"{hashlib.sha256(whole.encode()).hexdigest()}.json"
        if path.is_file():
            self.account.cached += 1
            return str(json.loads(path.read_text(encoding="utf-8"))["reply"])
        reply = self._reply(request)
        if reply is None:
            return None
        write_text(path, json.dumps({"request": request, "reply": reply}) + "\n")
        return reply

    def _reply(self, request: Mapping[str, Any]) -> str | None:
        import httpx

        trouble = ""
        for attempt in range(self._retries + 1):
            if self.exhausted:
                return None
            if attempt:
                time.sleep(self._wait * 2 ** (attempt - 1))
            self.account.requests += 1
            try:
                response = httpx.post(
                    f"{self._url}/chat/completions",
                    json=dict(request),
                    headers=self._headers,
                    timeout=self._timeout,
                )
            except httpx.HTTPError as error:
                trouble = type(error).__name__
                continue
            trouble = f"status {response.status_code}"
            if response.status_code == 200:
                return self._content(response)
            if response.status_code not in _RETRIED:
                break
        raise DataError(
            f"the judge at {self._url} gives no reply ({trouble}); check its URL, model and key"
        )

    def _content(self, response: Any) -> str:
        try:
            body = response.json()
            usage = body.get("usage") or {}
            self.account.prompt_tokens += int(usage.get("prompt_tokens", 0))
            self.account.completion_tokens += int(usage.get("completion_tokens", 0))
            return str(body["choices"][0]["message"]["content"])
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise DataError(
                f"the judge at {self._url} replies in another form than chat completions; give an "
                "OpenAI-compatible URL"
            ) from None

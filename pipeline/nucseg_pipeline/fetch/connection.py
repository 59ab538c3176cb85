"""Connections to servers: how long to wait, which responses to refuse, and errors that name the reason.

requests honours HTTPS_PROXY and NO_PROXY; urllib3's Retry repeats requests to a busy server.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from nucseg_pipeline.fetch.errors import FetchError

_BUSY = (408, 425, 429, 500, 502, 503, 504)
"""HTTP status codes after which another attempt may succeed."""


@dataclass(frozen=True)
class RetryPolicy:
    """How long to wait for a server, and how often to try again."""

    connect_s: float = 20.0
    read_s: float = 60.0
    """The longest time without any data."""
    attempts: int = 5
    """In a row without progress."""
    backoff_s: float = 1.0
    """Pause after the first failure; doubled after each further one."""

    def session(self) -> requests.Session:
        """A session that repeats requests until a response begins; other errors, such as a bad certificate, end it."""
        n = self.attempts - 1
        retry = Retry(
            total=None,
            connect=n,
            read=n,
            status=n,
            other=0,
            status_forcelist=_BUSY,
            backoff_factor=self.backoff_s,
            raise_on_status=False,
        )
        session = requests.Session()
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        return session


def check_response(response: requests.Response, url: str) -> None:
    """Refuse an error, a web page, and a file that came over an unencrypted connection. Raises FetchError."""
    if not response.ok:
        raise FetchError(f"{url} cannot be downloaded: HTTP {response.status_code} {response.reason}.")
    insecure = [step.url for step in (*response.history, response) if not step.url.startswith("https:")]
    if url.startswith("https:") and insecure:
        raise FetchError(f"{url} redirects to {insecure[0]}, which is not encrypted, so its origin is unknown.")
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise FetchError(f"{url} returned a web page instead of the file, such as the login page of a network.")


@contextmanager
def readable_errors(url: str) -> Iterator[None]:
    """Translate what requests raises into FetchError."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise FetchError(
            f"There is no secure connection to {urlsplit(url).hostname}: {root_cause(error)}. If your network inspects "
            "encrypted traffic, set REQUESTS_CA_BUNDLE to its certificate."
        ) from None
    except requests.ConnectionError as error:
        proxy = requests.utils.get_environ_proxies(url).get(urlsplit(url).scheme)
        route = f"through the proxy {urlsplit(proxy).hostname}" if proxy else "without a proxy (HTTPS_PROXY is not set)"
        raise FetchError(f"{url} cannot be reached {route}: {root_cause(error)}.") from None
    except requests.RequestException as error:
        raise FetchError(f"{url} cannot be downloaded: {root_cause(error)}.") from None


def root_cause(error: BaseException) -> str:
    """The innermost reason of an error of requests or urllib3, without the address and its password."""
    causes = (getattr(error, "reason", None), *error.args)
    inner = next((cause for cause in causes if isinstance(cause, BaseException)), None)
    return root_cause(inner) if inner else (str(error).rpartition("): ")[2] or type(error).__name__).rstrip(". ")

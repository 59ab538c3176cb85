"""How long a server is waited for, and how often it is asked again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from nucseg_pipeline.fetching.answers import Broken
from nucseg_pipeline.fetching.errors import FetchError

if TYPE_CHECKING:
    import requests

_READ_BYTES = 1 << 16
_DRIP_BYTES = 1 << 10
"""Less than this in the time of a stall is a stall, though it drips."""
_FURTHER_BYTES = 1 << 20
"""Attempts are counted anew when one has brought this much more than any before."""
_LONGEST_PAUSE_S = 60.0
_ENDLESS = 1 << 62

Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """How long to wait, and how often to try again."""

    connect_s: float = 20.0
    """For a connection to be made."""
    stall_s: float = 60.0
    """For anything to come."""
    attempts: int = 5
    """In a row that get no further."""
    pause_s: float = 1.0
    """Before the second attempt; twice as long before each that follows."""


def persist(url: str, attempt: Callable[[], Result], n_bytes: Callable[[], int], patience: Patience) -> Result:
    """Make attempts until one succeeds, with longer and longer pauses, as long as they may lead to something.

    `n_bytes` tells how much has come so far. Raises FetchError where attempt after attempt is Broken, and at once where
    no server was ever reached.
    """
    failures, farthest = 0, n_bytes()
    while True:
        try:
            with _translated(url, patience, reached=failures > 0):
                return attempt()
        except Broken as broken:
            here = n_bytes()
            failures = 1 if here >= farthest + _FURTHER_BYTES else failures + 1
            farthest = max(farthest, here)
            if failures >= patience.attempts:
                raise _given_up(url, broken, failures, here) from None
            pause_s = max(patience.pause_s * 2 ** (failures - 1), broken.wait_s)
            time.sleep(min(pause_s, _LONGEST_PAUSE_S))


def pieces(response: requests.Response, most_bytes: int | None, patience: Patience) -> Iterator[bytes]:
    """What comes, as it comes, up to `most_bytes`. Broken where it drips so slowly that it will never end."""
    left, in_window, since = most_bytes or _ENDLESS, 0, time.monotonic()
    while left and (piece := response.raw.read1(min(_READ_BYTES, left), decode_content=False)):
        left -= len(piece)
        in_window += len(piece)
        yield piece
        if time.monotonic() - since > patience.stall_s:
            if in_window < _DRIP_BYTES:
                raise Broken(f"only {in_window} bytes came in {patience.stall_s:g} s")
            in_window, since = 0, time.monotonic()


@contextmanager
def _translated(url: str, patience: Patience, *, reached: bool) -> Iterator[None]:
    """What requests and urllib3 raise, as Broken or FetchError."""
    import requests
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    try:
        yield
    except (requests.exceptions.ReadTimeout, ReadTimeoutError):
        raise Broken(f"nothing came for {patience.stall_s:g} s") from None
    except requests.exceptions.SSLError as error:
        raise FetchError(
            f"{_host(url)} cannot prove who it is ({_root(error)}), so nothing is taken from it."
        ) from None
    except requests.exceptions.ConnectionError as error:
        if reached or _was_reached(error):
            raise Broken(f"the connection broke ({_root(error)})") from None
        raise _unreachable(url, error) from None
    except requests.exceptions.RequestException as error:
        raise FetchError(f"{url} cannot be downloaded: {_root(error)}.") from None
    except HTTPError as error:
        raise Broken(f"the connection broke ({_root(error)})") from None


def _was_reached(error: Exception) -> bool:
    """Whether there was a server that then fell silent, rather than none."""
    from urllib3.exceptions import ProtocolError

    return bool(error.args) and isinstance(error.args[0], ProtocolError)


def _unreachable(url: str, error: Exception) -> FetchError:
    import requests

    proxy = requests.utils.get_environ_proxies(url).get(urlsplit(url).scheme)
    way = f"the proxy {_host(proxy)} is asked" if proxy else "no proxy is set (HTTPS_PROXY)"
    return FetchError(f"{_host(url)} cannot be reached ({_root(error)}); {way}. Is this machine connected?")


def _given_up(url: str, broken: Broken, failures: int, n_bytes: int) -> FetchError:
    kept = f" What has come, {n_bytes} bytes, is kept: the same command goes on from there." if n_bytes else ""
    return FetchError(f"{url} cannot be downloaded: {broken}, {failures} times in a row.{kept} Try again later.")


def _host(url: str) -> str:
    """Without a password."""
    parts = urlsplit(url)
    return parts.hostname or url


def _root(error: BaseException) -> str:
    """The innermost reason, in a few words."""
    while True:
        inner = getattr(error, "reason", None) or next((a for a in error.args if isinstance(a, BaseException)), None)
        if not isinstance(inner, BaseException):
            break
        error = inner
    text = str(error).rpartition(": ")[2] or type(error).__name__
    return text.strip(" .()'\"")[:200]

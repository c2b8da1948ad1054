"""Is a server there? An answer within seconds, where the download libraries retry for up to a
minute.
"""

from __future__ import annotations

import ssl
import threading
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from probe.errors import first_line

TIMEOUT = 5.0
GATEWAY_ERRORS = (502, 503, 504)  # a proxy's way to say that it does not get through


def unreachable(url: str, timeout: float = TIMEOUT) -> str | None:
    """None where a server answers at `url`, with whatever status, else the reason. Proxies of the
    environment are used.

    The look-up of the name has no time limit of its own, so the request runs in a thread that is
    left behind at `timeout`.
    """
    answers: list[str | None] = []
    thread = threading.Thread(target=lambda: answers.append(_head(url, timeout)), daemon=True)
    thread.start()
    thread.join(timeout)
    return answers[0] if answers else f"no answer within {timeout:g} s"


def _head(url: str, timeout: float) -> str | None:
    try:
        with urlopen(Request(url, method="HEAD"), timeout=timeout):
            return None
    except HTTPError as error:
        with error:
            return f"HTTP {error.code}" if error.code in GATEWAY_ERRORS else None
    except Exception as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, ssl.SSLError):
            # somebody answered; whether to trust them is for the library that downloads
            return None
        told = reason if isinstance(reason, BaseException) else OSError(reason)
        return (getattr(told, "strerror", None) or first_line(told)).lower()


__all__ = ["TIMEOUT", "unreachable"]

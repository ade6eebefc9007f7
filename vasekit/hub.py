"""Weights that have to be fetched: find out within seconds that they can't be."""

from __future__ import annotations

import os
import ssl
import threading
import time
import urllib.error
import urllib.request

PROBE_SECONDS = 4.0


class Probe:
    """Asks whether a server answers at `url`, through the proxies of the environment, while the caller goes on.

    In a thread of its own, since name resolution knows no time limit.
    """

    def __init__(self, url: str, seconds: float = PROBE_SECONDS) -> None:
        self._url, self._seconds = url, seconds
        self._over, self._until = threading.Event(), time.monotonic() + seconds
        self._answered = False
        threading.Thread(target=self._ask, daemon=True).start()

    def _ask(self) -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(self._url, method="HEAD"), timeout=self._seconds).close()
            self._answered = True
        except urllib.error.HTTPError:
            self._answered = True  # a refusal is an answer
        except urllib.error.URLError as error:
            self._answered = isinstance(error.reason, ssl.SSLError)  # the real client brings certificates of its own
        except OSError:
            pass
        self._over.set()

    def answered(self) -> bool:
        """Wait for the answer until the time is over."""
        self._over.wait(max(0.0, self._until - time.monotonic()))
        return self._answered


class HuggingFace:
    """Start early, ask `offline()` late: the probe runs while torch is being imported."""

    def __init__(self) -> None:
        from huggingface_hub import constants

        self._constants = constants
        self._probe = None if constants.HF_HUB_OFFLINE else Probe(constants.ENDPOINT)

    def offline(self) -> bool:
        """Whether the hub is out of reach, or forbidden by HF_HUB_OFFLINE.

        Then the hub's client is told so, which otherwise retries for minutes; what its cache holds still loads.
        """
        if self._probe and not self._probe.answered():
            os.environ["HF_HUB_OFFLINE"] = "1"
            self._constants.HF_HUB_OFFLINE = True
        return self._constants.HF_HUB_OFFLINE

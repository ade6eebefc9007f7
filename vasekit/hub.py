"""Weights that have to be fetched: find out within seconds that they can't be."""

from __future__ import annotations

import os
import ssl
import threading
import urllib.error
import urllib.request

PROBE_SECONDS = 4.0


def reachable(url: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether a server answers at `url` within `seconds`; proxies of the environment are used.

    In a thread of its own, since name resolution knows no time limit.
    """
    answered = threading.Event()

    def probe() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
        except urllib.error.HTTPError:
            pass  # a refusal is an answer
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ssl.SSLError):  # other certificates than ours: the client has its own
                return
        except OSError:
            return
        answered.set()

    threading.Thread(target=probe, daemon=True).start()
    return answered.wait(seconds)


def offline() -> bool:
    """Whether the Hugging Face hub is out of reach, or forbidden by HF_HUB_OFFLINE.

    Then the hub's client is told so, which otherwise retries for minutes; what its cache holds still loads.
    """
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE and not reachable(constants.ENDPOINT):
        os.environ["HF_HUB_OFFLINE"] = "1"
        constants.HF_HUB_OFFLINE = True
    return constants.HF_HUB_OFFLINE

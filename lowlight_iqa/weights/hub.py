"""The Hugging Face Hub: pinned files out of the client's cache or downloaded, uploads, and the model card."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ..card import Card

CONNECT = 1.5  # seconds to wait for the network
_PINNED = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})(/(?P<folder>[\w-]+))?")


class WeightsNotFound(OSError):  # noqa: N818  (a state of affairs to remedy, named as users look for it)
    """The weights are not at hand; the message names the file, where it comes from and how to install it."""


def download(source: str, file: str, anew: bool = False) -> Path:
    """A file of a pinned repository: out of the client's cache without any connection, or downloaded.

    Args:
        source: ``hf://owner/repo@<40-hex commit>``, or that with ``/folder`` behind it.
        file: the file's name.
        anew: download it even if it is cached.

    Raises:
        ValueError: the source is not pinned.
        WeightsNotFound: neither cached nor to be had.
    """
    match = _PINNED.fullmatch(source)
    if match is None:
        named = re.match(r"hf:/*([\w.-]+/[\w.-]+)", source)
        raise ValueError(
            f"{source!r} does not name one set of weights for ever; write "
            f"hf://{named[1] if named else 'owner/repo'}@<40-hex commit>, "
            "the full commit hash from the repository's history (a branch or tag can move)"
        )
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    repo, revision = match["repo"], match["revision"]
    path = f"{match['folder']}/{file}" if match["folder"] else file
    cached = None if anew else try_to_load_from_cache(repo, path, revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    try:
        check_connection()
        return Path(hf_hub_download(repo, path, revision=revision, force_download=anew))
    except Exception as error:  # the client raises those of whatever it talks HTTP with
        raise WeightsNotFound(
            f"{path} of {repo} at revision {revision} is neither cached nor to be had ({_why(error)}); on a machine "
            f"with a network: `lowlight-iqa fetch {source} --to DIR`, then create_metric(..., weights=DIR)"
        ) from error


def upload(directory: Path, files: Sequence[str], repo: str, *, private: bool, message: str) -> str:
    """Upload files of a directory in one go and return ``hf://owner/repo@<commit>``.

    Raises:
        OSError: the Hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    try:
        check_connection()
        api = HfApi()
        api.create_repo(repo, private=private or None, exist_ok=True)  # None: as the organization has it
        commit = api.upload_folder(
            repo_id=repo, folder_path=directory, allow_patterns=list(files), commit_message=message
        )
    except Exception as error:
        raise OSError(
            f"{directory} could not be uploaded to {repo} ({_why(error)}); "
            "uploading needs a network and a token that may write, by `hf auth login` or in HF_TOKEN"
        ) from error
    return f"hf://{repo}@{commit.oid}"


def check_connection() -> None:
    """Fail within ``CONNECT`` seconds where there is no network: the client itself tries for 24 s.

    Raises:
        OSError: neither the Hub nor, where one is set, the proxy to it can be reached, or the client is offline.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    place = urlsplit(constants.ENDPOINT)
    proxies = {} if proxy_bypass(place.hostname or "") else getproxies()
    proxy = proxies.get(place.scheme, proxies.get("all"))
    if proxy:
        place = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    address = place.hostname or "", place.port or {"https": 443, "socks5": 1080}.get(place.scheme, 80)
    failure: list[OSError] = [TimeoutError(f"no answer within {CONNECT} s")]

    def connect() -> None:
        try:
            socket.create_connection(address, CONNECT).close()
            failure.clear()
        except OSError as error:
            failure[0] = error

    thread = Thread(target=connect, daemon=True)  # looking up a name knows no timeout
    thread.start()
    thread.join(CONNECT)
    if failure:
        raise OSError(f"no connection to {address[0]}:{address[1]}: {failure[0]}")


def _why(error: Exception) -> str:
    """The client's error in one line; where it only says that something went wrong, what that was."""
    if type(error).__name__ == "LocalEntryNotFoundError" and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


# The model card

LICENSES = {
    "apache-2.0",
    "mit",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-nc-4.0",
}  # the Hub's ids
TASK = "image-classification"  # the Hub has no task for quality; in this one, too, a picture becomes named numbers
METRICS = {"SRCC": "spearmanr", "PLCC": "pearsonr"}  # the Hub's names of figures in Card.reached


def model_card(card: Card) -> str:
    """The README of a saved metric, with the metadata that the Hub's specification of model cards asks for."""
    from huggingface_hub import EvalResult, ModelCardData

    results = []
    for what, figure in card.reached.items():
        name, _, data = what.partition(", ")
        metric, value = METRICS.get(name.split()[0].upper()), re.match(r"-?\d*\.\d+\b", figure)
        if metric and data and value:
            results.append(
                EvalResult(
                    task_type=TASK,
                    task_name="no-reference image quality assessment",
                    dataset_type=_slug(data),
                    dataset_name=data,
                    metric_type=metric,
                    metric_name=name,
                    metric_value=float(value[0]),
                )
            )
    metadata = ModelCardData(
        library_name="lowlight-iqa",
        pipeline_tag=TASK,
        tags=["image-quality-assessment", "no-reference", "low-light", card.name],
        base_model=card.base_model or None,
        datasets=list(card.datasets) or None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=card.name if results else None,
        eval_results=results or None,
        **license_metadata(card),
    )
    reached = "\n".join(f"- {what}: {figure}" for what, figure in card.reached.items()) or "- not measured"
    low, high = card.score_range
    return f"""---
{metadata.to_yaml()}
---
# {card.name}

{card.summary}

```python
import lowlight_iqa

metric = lowlight_iqa.create_metric("{card.name}", weights="DIRECTORY or hf://owner/repo@<40-hex commit>")
metric("night.jpg")  # {low:g} to {high:g}, {"lower" if card.lower_better else "higher"} is better
```

- Source: {card.source}
- Input: RGB, shortest side at least {card.min_size}; preprocessing: {card.preprocessing}
- Trained on: {card.trained_on or "nothing"}
- Blind spots: {card.blind_spots or "not known"}
- License: {card.license}

Measured:

{reached}
"""


def license_metadata(card: Card) -> dict[str, Any]:
    """A license as the Hub names it; one that it does not know stands in a file beside the weights."""
    known = card.license.lower()
    if known in LICENSES:
        return {"license": known}
    if known == "not stated":
        return {"license": "unknown"}
    return {"license": "other", "license_name": _slug(re.split("[;:(]", known)[0]), "license_link": "LICENSE"}


def _slug(words: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-.")

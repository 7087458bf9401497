"""The Hugging Face Hub: pinned files out of the client's cache or downloaded, and uploads.

The client's own timeouts hold for each read and write; around them stands a limit for the whole, which a server that
sends a byte a second would otherwise stretch without end.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from .facts import DamagedError
from .files import WEIGHTS, WeightsNotFound, digest

CONNECT = 1.5  # seconds to look up a name, and to connect to each of its addresses
ANSWER = 10.0  # seconds until the Hub says whether it has a file
PATIENCE, RATE = 30.0, 50_000  # seconds for any download, and bytes a second beyond
TRIES, PAUSE = 3, 0.5  # of a Hub that answers 429 or 5xx
MAX_BYTES = {WEIGHTS: 20_000_000_000}  # the largest tower has 1.7 GB
MAX_OTHER = 1_000_000  # bytes of a config, a README, a license
_PINNED = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})(/(?P<folder>[\w-]+))?")

T = TypeVar("T")


def download(source: str, file: str, anew: bool = False) -> Path:
    """Return a file of a pinned repository: out of the client's cache without any connection, or downloaded.

    Args:
        source: ``hf://owner/repo@<40-hex commit>``, or that with ``/folder`` behind it.
        file: the file's name.
        anew: download it even if it is cached.

    Raises:
        ValueError: the source is not pinned.
        DamagedError: the cached file is not what the cache's own name for it says.
        WeightsNotFound: not cached, and the download failed.
    """
    match = _PINNED.fullmatch(source)
    if match is None or ".." in match["repo"]:
        named = re.match(r"hf:/*([\w.-]+/[\w.-]+)", source)
        raise ValueError(
            f"{source!r} does not name one set of weights for ever; write "
            f"hf://{named[1] if named else 'owner/repo'}@<40-hex commit>, "
            "the full commit hash from the repository's history (a branch or tag can move)"
        )
    from huggingface_hub import try_to_load_from_cache

    repo, revision = match["repo"], match["revision"]
    path = f"{match['folder']}/{file}" if match["folder"] else file
    cached = None if anew else try_to_load_from_cache(repo, path, revision=revision)
    if isinstance(cached, str):
        _check_blob(Path(cached))
        return Path(cached)
    try:
        with _quiet():
            return _download(repo, path, revision, anew)
    except Exception as error:  # the client raises those of whatever it talks HTTP with
        raise WeightsNotFound(
            f"{path} of {repo} at revision {revision} is not cached, and the download failed ({_why(error)}; asked: "
            f"{':'.join(map(str, _gate()))}); on a machine with a network: `lowlight-iqa fetch {source} --to DIR`, "
            "then create_metric(..., weights=DIR)"
        ) from error


def _download(repo: str, path: str, revision: str, anew: bool) -> Path:
    """Ask whether the Hub has a file and how large it is, then download it within a time by its size."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    _look_up()
    url = hf_hub_url(repo, path, revision=revision)
    facts = _within(ANSWER * 2, "answer", lambda: _retried(lambda: get_hf_file_metadata(url, timeout=_timeout())))
    if facts.commit_hash is None:
        raise OSError(f"{constants.ENDPOINT} answers without X-Repo-Commit, so it is no Hub; check proxy and firewall")
    size = facts.size
    most = MAX_BYTES.get(Path(path).name, MAX_OTHER)
    if size is not None and size > most:
        raise OSError(f"it has {size} bytes, more than {most}")
    return _within(
        PATIENCE + (size or most) / RATE,
        f"{size} bytes",
        lambda: Path(hf_hub_download(repo, path, revision=revision, force_download=anew, etag_timeout=ANSWER)),
    )


def _check_blob(path: Path) -> None:
    """Compare a cached file with the hash that its blob is called by; without links there is no such name.

    Raises:
        DamagedError: they differ.
    """
    if not path.is_symlink():
        return
    blob = os.path.basename(os.readlink(path))
    content: str | None = None
    if re.fullmatch(r"[0-9a-f]{40}", blob):  # git's name of a small file
        size = path.stat().st_size
        if size <= MAX_OTHER:
            content = hashlib.sha1(b"blob %d\0" % size + path.read_bytes(), usedforsecurity=False).hexdigest()
    elif re.fullmatch(r"[0-9a-f]{64}", blob):
        content = digest(path)
    if content not in (None, blob):
        raise DamagedError(f"{path} is damaged or was exchanged: the cache calls it {blob}, its hash is {content}")


def upload(directory: Path, files: Sequence[str], repo: str, *, private: bool, message: str) -> str:
    """Upload files of a directory in one go and return ``hf://owner/repo@<commit>``.

    Raises:
        OSError: the Hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi, constants

    try:
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        _look_up()
        with _quiet():
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


def _gate() -> tuple[str, int]:
    """Return host and port of the Hub, or of the proxy to it where one is set."""
    from huggingface_hub import constants

    place = urlsplit(constants.ENDPOINT)
    proxies = {} if proxy_bypass(place.hostname or "") else getproxies()
    proxy = proxies.get(place.scheme, proxies.get("all"))
    if proxy:
        place = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return place.hostname or "", place.port or {"https": 443, "socks5": 1080}.get(place.scheme, 80)


def _look_up() -> None:
    """Look up the name of the Hub, which no client limits in time.

    Raises:
        OSError: no such name, or no answer.
    """
    host, port = _gate()
    _within(CONNECT, f"address of {host}", lambda: socket.getaddrinfo(host, port))


def _within(seconds: float, what: str, call: Callable[[], T]) -> T:
    """Return what a call returns, if it does so in time; else it is left behind in its thread.

    Raises:
        TimeoutError: it does not.
        Exception: what the call raises.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no {what} within {seconds:.3g} s")
    return results[0]


def _retried(call: Callable[[], T]) -> T:
    """Call up to ``TRIES`` times while the Hub answers that it is busy or broken."""
    for number in range(1, TRIES + 1):
        try:
            return call()
        except Exception as error:
            status = getattr(getattr(error, "response", None), "status_code", 0)
            if number == TRIES or not (status == 429 or status >= 500):
                raise
        time.sleep(PAUSE * number)
    raise AssertionError("unreachable")


def _timeout() -> Any:
    """Return the client's timeouts in the form of whichever HTTP library it uses."""
    from huggingface_hub import utils

    own = getattr(utils.get_session(), "timeout", None)  # type: ignore[attr-defined]
    return (CONNECT, ANSWER) if own is None else type(own)(ANSWER, connect=CONNECT)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the client from logging what the error will say."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _why(error: Exception) -> str:
    """Return the client's error in one line; where it only says that something went wrong, what that was."""
    if type(error).__name__ == "LocalEntryNotFoundError" and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"

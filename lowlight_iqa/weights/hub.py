"""The Hugging Face Hub: pinned files from the client's cache or downloaded, and uploads.

The client's own timeouts apply to each read and write; a limit on the whole download is added here, against a server
that sends a byte a second.
"""

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
ANSWER = 10.0  # seconds until the Hub must answer whether it has a file
GRACE, MIN_RATE = 30.0, 50_000  # a download may take so many seconds, and more by its size at so many bytes a second
TRIES, PAUSE = 3, 0.5  # attempts, and seconds between them, where the Hub answers 429 or 5xx
MAX_BYTES = {WEIGHTS: 20_000_000_000}  # the largest tower has 1.7 GB
MAX_OTHER = 1_000_000  # bytes of a config, a README, a license
_PINNED = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})(/(?P<folder>[\w-]+))?")

T = TypeVar("T")


def download(source: str, file: str, force: bool = False) -> Path:
    """Return a file of a pinned repository: from the client's cache without any connection, or downloaded.

    Args:
        source: ``hf://owner/repo@<40-hex commit>``, optionally followed by ``/folder``.
        file: the file's name.
        force: download it even if it is cached.

    Raises:
        ValueError: the source is not pinned.
        DamagedError: the cached file does not have the hash that the cache names it by.
        WeightsNotFound: not cached, and the download failed.
    """
    match = _PINNED.fullmatch(source)
    if match is None or ".." in match["repo"]:
        named = re.match(r"hf:/*([\w.-]+/[\w.-]+)", source)
        raise ValueError(
            f"{source!r} does not pin one set of weights; write "
            f"hf://{named[1] if named else 'owner/repo'}@<40-hex commit>, "
            "the full commit hash from the repository's history (a branch or tag can move)"
        )
    from huggingface_hub import try_to_load_from_cache

    repo, revision = match["repo"], match["revision"]
    path = f"{match['folder']}/{file}" if match["folder"] else file
    cached = None if force else try_to_load_from_cache(repo, path, revision=revision)
    if isinstance(cached, str):
        _check_blob(Path(cached))
        return Path(cached)

    try:
        with _quiet():
            return _download(repo, path, revision, force)
    except Exception as error:  # the client raises the errors of its HTTP library
        raise WeightsNotFound(
            f"{path} of {repo} at revision {revision} is not cached, and the download from "
            f"{':'.join(map(str, _address()))} failed ({_reason(error)}); on a machine with a network: "
            f"`lowlight-iqa fetch {source} --to DIR`, then create_metric(..., weights=DIR)"
        ) from error


def _download(repo: str, path: str, revision: str, force: bool) -> Path:
    """Ask the Hub for a file's size, then download it within a time limit set by its size."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    _look_up()
    url = hf_hub_url(repo, path, revision=revision)
    metadata = _within(ANSWER * 2, "answer", lambda: _retried(lambda: get_hf_file_metadata(url, timeout=_timeout())))
    if metadata.commit_hash is None:
        raise OSError(
            f"{constants.ENDPOINT} answers without X-Repo-Commit, so it is not a Hub; check proxy and firewall"
        )

    size = metadata.size
    limit = MAX_BYTES.get(Path(path).name, MAX_OTHER)
    if size is not None and size > limit:
        raise OSError(f"it has {size} bytes, more than {limit}")
    return _within(
        GRACE + (size or limit) / MIN_RATE,
        f"{size} bytes",
        lambda: Path(hf_hub_download(repo, path, revision=revision, force_download=force, etag_timeout=ANSWER)),
    )


def _check_blob(path: Path) -> None:
    """Compare a cached file with the hash in its blob's name; a cache without links has no such names."""
    if not path.is_symlink():
        return
    blob = os.path.basename(os.readlink(path))
    actual: str | None = None
    if re.fullmatch(r"[0-9a-f]{40}", blob):  # git's SHA-1 of a small file
        size = path.stat().st_size
        if size <= MAX_OTHER:
            actual = hashlib.sha1(b"blob %d\0" % size + path.read_bytes(), usedforsecurity=False).hexdigest()
    elif re.fullmatch(r"[0-9a-f]{64}", blob):
        actual = digest(path)
    if actual not in (None, blob):
        raise DamagedError(f"{path} is damaged or was replaced: the cache names it {blob}, its hash is {actual}")


def upload(directory: Path, files: Sequence[str], repo: str, *, private: bool, message: str) -> str:
    """Upload files of a directory in one commit and return ``hf://owner/repo@<commit>``.

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
            api.create_repo(repo, private=private or None, exist_ok=True)  # None: the organization's default
            commit = api.upload_folder(
                repo_id=repo, folder_path=directory, allow_patterns=list(files), commit_message=message
            )
    except Exception as error:
        raise OSError(
            f"{directory} could not be uploaded to {repo} ({_reason(error)}); "
            "uploading needs a network and a token that may write, by `hf auth login` or in HF_TOKEN"
        ) from error
    return f"hf://{repo}@{commit.oid}"


def _address() -> tuple[str, int]:
    """Return host and port of the Hub, or of the proxy to it where one is set."""
    from huggingface_hub import constants

    url = urlsplit(constants.ENDPOINT)
    proxies = {} if proxy_bypass(url.hostname or "") else getproxies()
    proxy = proxies.get(url.scheme, proxies.get("all"))
    if proxy:
        url = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return url.hostname or "", url.port or {"https": 443, "socks5": 1080}.get(url.scheme, 80)


def _look_up() -> None:
    """Look up the Hub's host name, for which the client has no timeout."""
    host, port = _address()
    _within(CONNECT, f"address of {host}", lambda: socket.getaddrinfo(host, port))


def _within(seconds: float, what: str, call: Callable[[], T]) -> T:
    """Run a call in a thread and return its result or raise its error; after ``seconds`` the thread is abandoned."""
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
    """Repeat a call up to ``TRIES`` times while the Hub answers 429 or 5xx."""
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
    """Return the timeouts in the form of the client's HTTP library: requests or httpx."""
    from huggingface_hub import utils

    own = getattr(utils.get_session(), "timeout", None)  # type: ignore[attr-defined]
    return (CONNECT, ANSWER) if own is None else type(own)(ANSWER, connect=CONNECT)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the client's log: the error holds the same information."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _reason(error: Exception) -> str:
    """Return the client's error, or the cause of an uninformative one, in one line."""
    if type(error).__name__ == "LocalEntryNotFoundError" and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"

"""Files that are written whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REMEDY = "make room and allow writing there, or choose another folder"


@contextmanager
def replacing(path: Path, beside: Path | None = None, remedy: str = REMEDY) -> Iterator[Path]:
    """Yield the path of a new file, which takes the place of ``path`` when the block ends.

    If the process is killed, the old file stays whole; if the block fails, the new file is removed. A link is replaced
    and not followed; a device or a pipe such as /dev/stdout is written to directly.

    Args:
        path: the file.
        beside: the new file, in the same folder; by default the name with ".new" after it.
        remedy: what the error advises.

    Raises:
        OSError: it cannot be written; the message names the file and the remedy.
    """
    stream = path.exists() and not path.is_file() and not path.is_dir()
    new = path if stream else beside or path.with_name(f"{path.name}.new")
    try:
        yield new
        if not stream:
            new.replace(path)
    except BaseException as error:
        if not stream:
            _remove(new)
        if isinstance(error, (OSError, RuntimeError)):  # torch's writer knows nothing but RuntimeError
            raise refused(path, error, remedy) from error
        raise


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all, with its line ends as they are; see ``replacing``."""
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8", newline="")


def make_folder(path: Path) -> Path:
    """Make a folder and its parents, if they do not exist; the OSError is that of ``replacing``."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(path, error) from error
    return path


def refused(path: Path, error: Exception, remedy: str = REMEDY) -> OSError:
    """Return the error of a file that cannot be written."""
    lines = str(getattr(error, "strerror", None) or error).splitlines() or [type(error).__name__]
    return OSError(f"{path} cannot be written ({lines[0]}); {remedy}")


def _remove(path: Path) -> None:
    """Remove a file if it is there and the disk allows it."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return

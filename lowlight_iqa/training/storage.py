"""Files that are written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a new file, which takes the place of ``path`` when the block ends.

    A process that is killed leaves the old file whole. Where the block fails the new file is removed.

    Raises:
        OSError: it cannot be written; the message names the file and says what to do.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        yield new
        new.replace(path)
    except BaseException as error:
        _remove(new)
        if isinstance(error, (OSError, RuntimeError)):  # torch's writer knows nothing but RuntimeError
            reason = str(error).splitlines()[0]
            raise OSError(
                f"{path} cannot be written ({reason}); make room and allow writing there, or choose another folder"
            ) from error
        raise


def _remove(path: Path) -> None:
    """Remove a file if it is there and the disk allows it."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return

"""Write files completely or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a new file, which replaces ``path`` when the block ends.

    If the process is killed, the old file is unchanged. If the block fails, the new file is removed.

    Raises:
        OSError: it cannot be written; the message names the file and the remedy.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        yield new
        new.replace(path)
    except BaseException as error:
        _remove(new)
        if isinstance(error, (OSError, RuntimeError)):  # torch.save raises RuntimeError for a full disk
            reason = str(error).splitlines()[0]
            raise OSError(
                f"{path} cannot be written ({reason}); make room and allow writing there, or choose another folder"
            ) from error
        raise


def _remove(path: Path) -> None:
    """Remove a file if it exists and the disk allows it."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return

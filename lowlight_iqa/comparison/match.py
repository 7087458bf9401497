"""Match the pictures of several folders by the stem of their file names, without a known suffix."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..images import SUFFIXES

# What enhancement codes append to a picture's name, and what data sets call the two sides of a pair.
WORDS = (
    *("out", "output", "enhanced", "enhance", "result", "restored", "pred", "prediction", "fake_B", "fake"),
    *("low", "dark", "input", "high", "normal", "gt", "reference", "ref"),
)
KNOWN = tuple(mark + word for mark in "_-" for word in WORDS)


@dataclass(frozen=True)
class Matched:
    """The pictures that all folders hold, and those that some folder lacks."""

    names: tuple[str, ...]
    files: Mapping[str, Mapping[str, Path]]  # {folder's label: {name: file}}
    missing: Mapping[str, tuple[str, ...]]  # {name: labels of the folders that lack it}

    def complaint(self) -> str:
        """Say which pictures some folder lacks, in one line; "" if none."""
        if not self.missing:
            return ""
        shown = [f"{name!r} (not in {', '.join(labels)})" for name, labels in list(self.missing.items())[:5]]
        more = len(self.missing) - len(shown)
        return (
            f"{len(self.missing)} of {len(self.missing) + len(self.names)} pictures have no partner in every folder: "
            f"{'; '.join(shown)}{f'; and {more} more' if more else ''}"
        )


def match_folders(folders: Mapping[str, Path], suffixes: Sequence[str] | None = None) -> Matched:
    """Match the pictures of folders, searched recursively; a picture's name is its path in the folder.

    ``suffixes`` are cut off the names, instead of ``KNOWN`` and the folder's own name; () for none.

    Raises:
        NotADirectoryError: no such folder.
        ValueError: a folder without pictures, two files of one name in a folder, no name that all folders have.
    """
    named = {label: _named(folder, suffixes) for label, folder in folders.items()}
    everything = sorted({name for files in named.values() for name in files}, key=natural_key)
    missing = {name: tuple(label for label in named if name not in named[label]) for name in everything}
    missing = {name: labels for name, labels in missing.items() if labels}
    names = tuple(name for name in everything if name not in missing)
    if not names:
        examples = "; ".join(f"{label}: {next(iter(files.values())).name}" for label, files in named.items())
        raise ValueError(f"no picture is in every folder ({examples}); rename them, or give the suffix with --suffix")
    return Matched(
        names=names,
        files={label: {name: files[name] for name in names} for label, files in named.items()},
        missing=missing,
    )


def cut_suffix(stem: str, suffixes: Iterable[str]) -> str:
    """Cut every known suffix, in any case, off the end of a stem, but not the whole stem."""
    ordered = sorted(filter(None, suffixes), key=len, reverse=True)
    cut = True
    while cut:
        cut = False
        for suffix in ordered:
            if stem.lower().endswith(suffix.lower()) and len(stem) > len(suffix):
                stem, cut = stem[: -len(suffix)], True
                break
    return stem


def printable(name: str) -> str:
    """Write the bytes of a file's name that are not text as escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key that orders numbers in names by value: 2 before 10."""
    key: list[tuple[int, int, str]] = []
    digits = ""
    for character in name + "\0":
        if character.isascii() and character.isdigit():
            digits += character
            continue
        if digits:
            key.append((0, int(digits), digits))
            digits = ""
        key.append((1, 0, character))
    return key


def _named(folder: Path, suffixes: Sequence[str] | None) -> dict[str, Path]:
    """Return the pictures of a folder by name."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; give the folder of a method's pictures")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise ValueError(f"{folder} holds no pictures ({' '.join(sorted(SUFFIXES))})")
    if suffixes is None:
        suffixes = (*KNOWN, *(mark + folder.resolve().name for mark in "_-"))

    named: dict[str, Path] = {}
    for file in files:
        name = printable((file.parent.relative_to(folder) / cut_suffix(file.stem, suffixes)).as_posix())
        if name in named:
            raise ValueError(
                f"{named[name]} and {file} are both picture {name!r}; remove one of them, "
                "or give the suffix to cut off the names with --suffix ('' for none)"
            )
        named[name] = file
    return named

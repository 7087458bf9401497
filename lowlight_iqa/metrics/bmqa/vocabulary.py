"""Words and tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

PAD, START, END, UNKNOWN = range(4)  # tokens that stand for no word
KNOWN = 1 / 3  # share of a text's words that must be known


class Vocabulary:
    """Words by number and numbers by word; everything is lower case."""

    pattern = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*|\d+|[.,;:!?]")

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._places = {word: place for place, word in enumerate(words, UNKNOWN + 1)}

    @classmethod
    def of(cls, texts: Iterable[str]) -> Vocabulary:
        """Every word of some texts."""
        return cls(sorted({word for text in texts for word in cls.pattern.findall(text.lower())}))

    def __len__(self) -> int:
        return len(self.words) + UNKNOWN + 1

    def encode(self, text: str) -> list[int]:
        """The words' numbers, and ``END``."""
        return [*(self._places.get(word, UNKNOWN) for word in self.pattern.findall(text.lower())), END]

    def word(self, token: int) -> str:
        """The word of a number above ``UNKNOWN``."""
        return self.words[token - UNKNOWN - 1]

    def decode(self, tokens: Iterable[int]) -> str:
        """A sentence; ``encode`` gives its tokens again."""
        text = " ".join(self.word(token) for token in tokens if token > UNKNOWN)
        text = re.sub(r" ([.,;:!?])", r"\1", text)
        return text[:1].upper() + text[1:]

    def read(self, text: str, longest: int) -> list[int]:
        """``encode`` for a user's text.

        Raises:
            TypeError: it is no string.
            ValueError: it has no words, too many of them, or too few that are known.
        """
        if not isinstance(text, str):
            raise TypeError(f"a text is a string such as 'a dim street, severe noise', not {type(text).__name__}")
        tokens = self.encode(text)
        if len(tokens) > longest:
            raise ValueError(
                f"the text has {len(tokens) - 1} words and signs, at most {longest - 1} are read; shorten it"
            )
        words = [word for word in self.pattern.findall(text.lower()) if word[0].isalnum()]
        known = sum(word in self._places for word in words)
        if not words or known < KNOWN * len(words):
            raise ValueError(
                f"of the {len(words)} words of the text {text[:60]!r} {known} are known; describe the quality in "
                "English, such as 'dim brightness, severe noise', or leave text out"
            )
        return tokens


def padded(texts: Sequence[Sequence[int]], device: torch.device | str | None = None) -> Tensor:
    """Tokens (N, T) of texts of unlike lengths, filled up with ``PAD``."""
    longest = max(map(len, texts))
    return torch.tensor([[*text, *[PAD] * (longest - len(text))] for text in texts], device=device)

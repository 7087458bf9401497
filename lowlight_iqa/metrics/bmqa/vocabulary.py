"""The vocabulary: words to tokens and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

PAD, START, END, UNKNOWN = range(4)  # special tokens
KNOWN = 1 / 3  # share of a text's words that must be known


class Vocabulary:
    """Lower-case words and their tokens."""

    pattern = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*|\d+|[.,;:!?]")

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._tokens = {word: token for token, word in enumerate(words, UNKNOWN + 1)}

    @classmethod
    def of(cls, texts: Iterable[str]) -> Vocabulary:
        """Build the vocabulary of all words of some texts."""
        return cls(sorted({word for text in texts for word in cls.pattern.findall(text.lower())}))

    def __len__(self) -> int:
        return len(self.words) + UNKNOWN + 1

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, and ``END``."""
        return [*(self._tokens.get(word, UNKNOWN) for word in self.pattern.findall(text.lower())), END]

    def word(self, token: int) -> str:
        """Return the word of a token above ``UNKNOWN``."""
        return self.words[token - UNKNOWN - 1]

    def decode(self, tokens: Iterable[int]) -> str:
        """Return tokens as a sentence, from which ``encode`` returns the same tokens."""
        text = " ".join(self.word(token) for token in tokens if token > UNKNOWN)
        text = re.sub(r" ([.,;:!?])", r"\1", text)
        return text[:1].upper() + text[1:]

    def read(self, text: str, longest: int) -> list[int]:
        """Check and encode a user's text of at most ``longest`` tokens, of which a third must be known."""
        if not isinstance(text, str):
            raise TypeError(f"a text is a string such as 'a dim street, severe noise', not {type(text).__name__}")
        tokens = self.encode(text)
        if len(tokens) > longest:
            raise ValueError(
                f"the text has {len(tokens) - 1} words and signs, at most {longest - 1} are read; shorten it"
            )
        words = [word for word in self.pattern.findall(text.lower()) if word[0].isalnum()]
        known = sum(word in self._tokens for word in words)
        if not words or known < KNOWN * len(words):
            raise ValueError(
                f"of the {len(words)} words of the text {text[:60]!r} {known} are known; describe the quality in "
                "English, such as 'dim brightness, severe noise', or leave text out"
            )
        return tokens


def padded(texts: Sequence[Sequence[int]], device: torch.device | str | None = None) -> Tensor:
    """Return tokens (N, T) of texts of different lengths, padded with ``PAD``."""
    longest = max(map(len, texts))
    return torch.tensor([[*text, *[PAD] * (longest - len(text))] for text in texts], device=device)

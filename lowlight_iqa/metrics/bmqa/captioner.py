"""The captioner: show, attend and tell (Xu et al., ICML 2015, arXiv 1502.03044), with a beam search."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .vocabulary import END, PAD, START, UNKNOWN

BEAMS = 3
LONGEST = 60  # words of a caption


class Captioner(nn.Module):
    """Show, attend and tell: an LSTM that looks at a weighted mean of places (soft attention) before each word.

    Args:
        inputs: features of a place; the first place is the whole picture.
        vocabulary: number of tokens.
        width: of the LSTM, the attention and the reduced places.
    """

    def __init__(self, inputs: int, vocabulary: int, width: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Linear(inputs, width), nn.ReLU())
        self.words = nn.Embedding(vocabulary, width // 2, padding_idx=PAD)
        self.start = nn.Linear(width, 2 * width)
        self.place, self.state = nn.Linear(width, width), nn.Linear(width, width)
        self.energy = nn.Linear(width, 1)
        self.gate = nn.Linear(width, width)
        self.cell = nn.LSTMCell(width // 2 + width, width)
        self.output = nn.Linear(width, vocabulary)

    def begin(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Places (N, P, width), their keys and the LSTM's state (N, width) twice, of features (N, P, inputs)."""
        places = self.reduce(features)
        h, c = self.start(places[:, 0]).tanh().chunk(2, 1)
        return places, self.place(places), h, c

    def step(
        self, word: Tensor, places: Tensor, keys: Tensor, h: Tensor, c: Tensor, dropout: float = 0.0
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (N, vocabulary) of the word after ``word`` (N,), where it looked (N, P), and the new state."""
        looked = self.energy((keys + self.state(h)[:, None]).relu())[..., 0].softmax(1)
        context = self.gate(h).sigmoid() * (places * looked[..., None]).sum(1)
        h, c = self.cell(torch.cat([self.words(word), context], 1), (h, c))
        return self.output(F.dropout(h, dropout, dropout > 0)), looked, h, c

    def forward(self, features: Tensor, tokens: Tensor, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """Logits (N, T, vocabulary) of each token (N, T) given those before it, and where it looked (N, T, P)."""
        places, keys, h, c = self.begin(features)
        words = torch.cat([torch.full_like(tokens[:, :1], START), tokens[:, :-1]], 1)
        steps = []
        for word in words.unbind(1):
            logits, looked, h, c = self.step(word, places, keys, h, c, dropout)
            steps.append((logits, looked))
        return tuple(torch.stack(parts, 1) for parts in zip(*steps, strict=True))  # type: ignore[return-value]

    @torch.no_grad()
    def search(self, features: Tensor, beams: int = BEAMS, longest: int = LONGEST) -> list[tuple[list[int], Tensor]]:
        """The likeliest captions that a beam search finds: tokens, ``END`` last, and where each word looked (words, P).

        A picture's caption does not depend on the others of the batch; of equal sums the earlier beam's is taken.
        """
        count, device = len(features), features.device
        places, keys, h, c = (part.repeat_interleave(beams, 0) for part in self.begin(features))
        first = torch.arange(count, device=device)[:, None] * beams  # the row of each picture's first beam
        total = features.new_full((count, beams), -torch.inf)
        total[:, 0] = 0
        tokens = torch.full((count * beams, 1), START, device=device)
        looked = features.new_zeros((count * beams, 0, features.shape[1]))
        for place in range(longest):
            logits, weights, h, c = self.step(tokens[:, -1], places, keys, h, c)
            gains = logits.log_softmax(1)
            gains[:, [PAD, START, UNKNOWN] if place else [PAD, START, UNKNOWN, END]] = -torch.inf
            ended = (tokens[:, -1] == END) | (tokens[:, -1] == PAD)
            gains[ended] = -torch.inf
            gains[ended, PAD] = 0
            sums = (total.reshape(-1, 1) + gains).view(count, -1)  # (N, beams * vocabulary)
            total, best = (part[:, :beams] for part in sums.sort(stable=True, dim=1, descending=True))
            rows = (first + best // gains.shape[1]).flatten()
            h, c, tokens, looked, weights = (part[rows] for part in (h, c, tokens, looked, weights))
            tokens = torch.cat([tokens, (best % gains.shape[1]).view(-1, 1)], 1)
            looked = torch.cat([looked, weights[:, None]], 1)
            leading = tokens[::beams, -1]
            if ((leading == END) | (leading == PAD)).all():  # sums only fall: what leads and has ended stays
                break
        found = []
        for text, places_seen in zip(tokens[::beams, 1:].tolist(), looked[::beams], strict=True):
            text = text[: text.index(END)] if END in text else text
            found.append(([*text, END], places_seen[: len(text)]))
        return found

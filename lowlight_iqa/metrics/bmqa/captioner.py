"""The captioner: show, attend and tell (Xu et al., ICML 2015, arXiv 1502.03044), with beam search."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...functional.exportable import exporting
from .vocabulary import END, PAD, START, UNKNOWN

BEAMS = 3
LONGEST = 60  # words of a caption


class Captioner(nn.Module):
    """Show, attend and tell: an LSTM with soft attention over the positions of a feature map before each word.

    ``inputs`` are the features of a position; the first is the whole picture. ``width`` is that of LSTM and attention.
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
        """Return values (N, P, width) and keys of features (N, P, inputs), and the LSTM's state (N, width) twice."""
        values = self.reduce(features)
        h, c = self.start(values[:, 0]).tanh().chunk(2, 1)
        return values, self.place(values), h, c

    def step(
        self, word: Tensor, values: Tensor, keys: Tensor, h: Tensor, c: Tensor, dropout: float = 0.0
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits (N, vocabulary) of the word after ``word`` (N,), its attention (N, P), and the new state."""
        attention = self.energy((keys + self.state(h)[:, None]).relu())[..., 0].softmax(1)
        context = self.gate(h).sigmoid() * (values * attention[..., None]).sum(1)
        h, c = self.cell(torch.cat([self.words(word), context], 1), (h, c))
        return self.output(F.dropout(h, dropout, dropout > 0)), attention, h, c

    def forward(self, features: Tensor, tokens: Tensor, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return logits (N, T, vocabulary) of each token (N, T) given those before it, and its attention (N, T, P)."""
        values, keys, h, c = self.begin(features)
        words = torch.cat([torch.full_like(tokens[:, :1], START), tokens[:, :-1]], 1)
        all_logits, attentions = [], []
        for word in words.unbind(1):
            logits, attention, h, c = self.step(word, values, keys, h, c, dropout)
            all_logits.append(logits)
            attentions.append(attention)
        return torch.stack(all_logits, 1), torch.stack(attentions, 1)

    @torch.no_grad()
    def search(self, features: Tensor, beams: int = BEAMS, longest: int = LONGEST) -> list[tuple[list[int], Tensor]]:
        """Find captions by beam search: tokens, ``END`` last, and the attention of each word, (words, P).

        A picture's caption does not depend on the others of the batch; of equal sums the earlier beam's wins.
        """
        captions = []
        for row, looked_at in zip(*self.best_beams(features, beams, longest), strict=True):
            text = row.tolist()
            if END in text:
                text = text[: text.index(END)]
            captions.append(([*text, END], looked_at[: len(text)]))
        return captions

    def best_beams(self, features: Tensor, beams: int = BEAMS, longest: int = LONGEST) -> tuple[Tensor, Tensor]:
        """Return the best caption's tokens (N, T), ``PAD`` after its ``END``, and their attention (N, T, P)."""
        count, device = features.shape[0], features.device
        values, keys, h, c = (part.repeat_interleave(beams, 0) for part in self.begin(features))
        first = torch.arange(count, device=device)[:, None] * beams  # the row of each picture's first beam
        total = features.new_full((count, beams), -torch.inf)
        total[:, 0] = 0
        tokens = torch.full((count * beams, 1), START, device=device)
        attention = features.new_zeros((count * beams, 0, features.shape[1]))
        vocabulary = self.output.out_features
        token = torch.arange(vocabulary, device=device)
        special = token <= UNKNOWN

        for index in range(longest):
            logits, weights, h, c = self.step(tokens[:, -1], values, keys, h, c)
            refused = special & (token != END) if index else special
            gains = logits.log_softmax(1).masked_fill(refused, -torch.inf)
            ended = (tokens[:, -1:] == END) | (tokens[:, -1:] == PAD)
            gains = gains.masked_fill(ended, -torch.inf).masked_fill(ended & (token == PAD), 0)

            # Rank every continuation of a picture's beams together: (N, beams * vocabulary).
            sums = rearrange(total.reshape(-1, 1) + gains, "(n beams) v -> n (beams v)", beams=beams)
            if exporting():  # ONNX ranks stably
                ranked, order = sums.topk(beams, dim=1)
            else:
                ranked, order = sums.sort(stable=True, dim=1, descending=True)
            total, order = ranked[:, :beams], order[:, :beams]
            parent, next_token = order // vocabulary, order % vocabulary

            rows = (first + parent).flatten()
            h, c = h[rows], c[rows]
            tokens = torch.cat([tokens[rows], next_token.reshape(-1, 1)], 1)
            attention = torch.cat([attention[rows], weights[rows, None]], 1)
            # Sums only fall, so an ended best beam stays the best.
            leading = tokens[::beams, -1]
            if not exporting() and ((leading == END) | (leading == PAD)).all():
                break
        return tokens[::beams, 1:], attention[::beams]

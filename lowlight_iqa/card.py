"""Card: the facts of a metric that are known before any weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Card:
    """The facts of one metric; the tests of lowlight_iqa.testing check them against the metric's behavior."""

    name: str  # what create_metric takes
    summary: str  # one line: what it is and, for a model trained by this project, what it is not
    source: str  # paper, section or equation, and the reference implementation where there is one
    lower_better: bool
    score_range: tuple[float, float]  # the ends of the scale; scores may exceed them by 5 %
    license: str  # of the weights or parameters, apart from the code's Apache-2.0
    # Scores of real pictures, at their good end and their bad end, measured by tools/measure_typical.py: the loss is 0
    # at the first and 1 at the second. None: the ends of score_range.
    typical_range: tuple[float, float] | None = None
    gradient: str = "exact"  # in words: "exact", what is relaxed, where it is zero
    piecewise: bool = False  # a part of the score is constant by pieces: the gradient is that of the rest
    zero_gradient: tuple[str, ...] = ()  # pictures of lowlight_iqa.testing that vary and on which it vanishes
    learned: bool = False  # trained on people's scores
    commercial: bool = True  # whether the weights may be used commercially
    needs_reference: bool = False  # metric(enhanced, reference=dark)
    min_size: int = 32  # the shortest side accepted, in pixels
    sees: tuple[str, ...] = ()  # degradations that its score responds to, strongest first: "exposure", "noise", ...
    blind_spots: str = ""  # what it is known to judge wrongly
    preprocessing: str = "none"
    trained_on: str = ""
    datasets: tuple[str, ...] = ()  # names of the training data
    base_model: str = ""  # what training started from, as the Hub names it
    weights: str = ""  # file under lowlight_iqa/weights/bundled, or ""
    sha256: str = ""  # of that file
    hub: str = ""  # of weights that are not bundled: owner/repo@<40-hex commit>
    checkpoint: str = ""  # pattern of the authors' file that `lowlight-iqa convert` takes
    origin: str = ""  # of weights that are neither: where they come from and the command that installs them
    looks: int = 0  # models of this name, trials included, that were scored on the test split of ``reached``
    reached: Mapping[str, str] = field(default_factory=dict)  # measured figures, with their protocol
    bibtex: str = ""  # of the paper, for a metric from elsewhere; this library's are in citations.bib

    @property
    def best(self) -> float:
        """The better end of ``score_range``."""
        return self.score_range[0] if self.lower_better else self.score_range[1]

    @property
    def loss_range(self) -> tuple[float, float]:
        """The scores at which the loss is 0 and 1."""
        low, high = self.score_range
        ends = (low, high) if self.lower_better else (high, low)
        return self.typical_range or ends

    def __str__(self) -> str:
        low, high = self.score_range
        typical = ", ".join(f"{end:.4g}" for end in self.typical_range) if self.typical_range else ""
        rows = {
            "source": self.source,
            "score": f"{low:g} to {high:g}, {'lower' if self.lower_better else 'higher'} is better",
            "typical, good and bad end": typical,
            "gradient": self.gradient,
            "no gradient on": ", ".join(self.zero_gradient),
            "sees": ", ".join(self.sees),
            "blind spots": self.blind_spots,
            "input": f"RGB in [0, 1], shortest side at least {self.min_size}"
            + ("; and the dark input as reference" if self.needs_reference else ""),
            "preprocessing": self.preprocessing,
            "trained on": self.trained_on,
            "base model": self.base_model,
            "license": self.license + ("" if self.commercial else " (not for commercial use)"),
            "weights": f"{self.weights}, sha256 {self.sha256}" if self.weights else self.hub or self.origin,
            "checkpoint": self.checkpoint,
            "scored on the test split": f"{self.looks} models of this name, trials included" if self.looks else "",
            **{f"reached: {what}": figure for what, figure in self.reached.items()},
        }
        body = "\n".join(f"  {key}: {value}" for key, value in rows.items() if value)
        return f"{self.name}: {self.summary}\n{body}"


def license_of(name: str, data: str = "BIQ2021") -> str:
    """Return the license of bundled weights that this project trained."""
    return (
        f"research use; training data without a stated license ({data}); trunk Apache-2.0; "
        f"notice in weights/bundled/NOTICE.{name}"
    )

"""BRISQUE: spatial statistics of a picture, mapped to people's scores by a support vector regression.

Mittal, Moorthy, Bovik, "No-reference image quality assessment in the spatial domain", IEEE TIP 2012.
Equal to the authors' MATLAB code (LIVE, BRISQUE_release); docs/handcrafted.md has the comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..card import Card
from ..functional import nss
from ..functional.patch_moments import picture_moments
from ..functional.resize import imresize
from ..images import Picture
from ..metric import Metric
from ..registry import register
from ..weights.files import Loaded, load_strictly

FEATURES = 36


@register(
    Card(
        name="brisque",
        summary="36 spatial statistics and the authors' regression on LIVE's scores (official model)",
        source="Mittal et al., IEEE TIP 2012; reference implementation: LIVE's BRISQUE_release (MATLAB, libsvm)",
        lower_better=True,
        # Just beyond the smallest and largest value of the regression, -318.3 and 527.1, found by gradient ascent from
        # each of its support vectors. It is not proven that there are none beyond; no picture has come near them.
        # Photographs have 0 to 110, single-pixel checkers and night skies of sparse points up to 220.
        score_range=(-320.0, 530.0),
        typical_range=(-2.54, 112.0),
        license="LIVE, University of Texas at Austin: free with the notice in weights/bundled/NOTICE.brisque",
        zero_gradient=("noise of one step", "blue noise of one step"),
        gradient="exact; fades to zero far from all training pictures, as on noise of one 8-bit step, and is zero on a "
        "picture whose gray levels all round to one",
        learned=True,
        min_size=32,
        sees=("noise", "blur", "compression", "exposure"),
        blind_spots="sees darkness only through a constant in the normalization, so that the noise of a real dark "
        "picture can make it score as well as a bright one; trained on five synthetic distortions of daylight pictures",
        preprocessing="gray levels as MATLAB's rgb2gray",
        trained_on="LIVE Image Quality Assessment Database, release 2 (the authors' training)",
        weights="brisque.safetensors",
        sha256="2e6eda4930a6d8ef2ebae0a103e0bf8aa0c1666c139b6749faafa05688d4181d",
    ),
    Card(
        name="brisque-dark",
        summary="BRISQUE's features, regression trained by this project on dark photographs; not the authors' model",
        source="features of Mittal et al., IEEE TIP 2012; RBF support vector regression, C 64, gamma 0.1, epsilon 0.3, "
        "chosen by 5-fold cross-validation inside the training pictures",
        lower_better=False,
        # Just beyond the smallest and largest value of the regression, -3.375 and 3.871, found in the same way; MOS and
        # the scores of photographs are 0 to 1.
        score_range=(-3.4, 3.9),
        typical_range=(0.876, 0.217),
        zero_gradient=("noise of one step", "blue noise of one step", "checker"),
        gradient="exact; fades to zero far from all training pictures, as on noise of one 8-bit step, and is zero on a "
        "picture whose gray levels all round to one",
        license="research use; training data without a stated license (BIQ2021)",
        learned=True,
        commercial=False,
        looks=1,
        min_size=32,
        sees=("exposure", "noise"),
        blind_spots="knows dark photographs only; enhanced pictures and synthetic degradations are outside what it "
        "saw; a mirrored picture can score otherwise (0.47 and 0.89 in one case), as products with neighbors to the "
        "lower left and lower right are features of their own",
        preprocessing="gray levels as MATLAB's rgb2gray",
        trained_on="the 1,922 dark pictures (mean luma < 70) of BIQ2021's training list with people's scores",
        datasets=("BIQ2021",),
        reached={
            "SRCC, 409 dark pictures of BIQ2021's test split": "0.735 [0.679, 0.784]; the authors' model 0.385",
            "PLCC (raw), 409 dark pictures of BIQ2021's test split": "0.776 [0.725, 0.819]; the authors' model 0.358",
        },
        weights="brisque-dark.safetensors",
        sha256="156fa1380d0b27faa078252c9f066330e5e526564d2390a6b1a8fb5ba39c34cb",
    ),
)
class Brisque(Metric):
    """Blind/referenceless image spatial quality evaluator; ``Brisque.fit`` trains one on other scores."""

    second_derivatives = False

    def __init__(self, card: Card, parameters: Mapping[str, Tensor]) -> None:
        """Build it from the parameters of a regression, from ``train_regression``."""
        super().__init__(card)
        self.support: Tensor  # (S, 36), scaled features
        self.coefficients: Tensor  # (S,)
        self.offset: Tensor  # ()
        self.gamma: Tensor  # (), of the kernel exp(-gamma |a - b|^2)
        self.low: Tensor  # (36,), the feature values that scale to -1
        self.high: Tensor  # (36,), and to 1
        size = parameters["support"].shape[:1] if "support" in parameters else ()
        shapes: dict[str, tuple[int, ...]] = {
            "support": (*size, FEATURES), "coefficients": size, "offset": (), "gamma": (),
            "low": (FEATURES,), "high": (FEATURES,),
        }  # fmt: skip
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        load_strictly(self, parameters)

    @classmethod
    def from_weights(cls, loaded: Loaded) -> Brisque:  # type: ignore[override]
        """Build it from a weights file."""
        return cls(loaded.card, loaded.tensors)

    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Return scores (N,)."""
        return self.regress(spatial_features(x)).to(x.dtype)

    def regress(self, features: Tensor) -> Tensor:
        """Return scores (N,) of features (N, 36) from ``spatial_features``."""
        low, high = self.low.to(features), self.high.to(features)
        scaled = 2 * (features - low) / (high - low) - 1
        distance = (scaled[:, None] - self.support.to(features)).square().sum(-1)  # (N, S)
        kernel = torch.exp(-self.gamma.to(features) * distance)
        return kernel @ self.coefficients.to(features) + self.offset.to(features)

    @classmethod
    def fit(
        cls,
        images: Iterable[Picture],
        mos: Sequence[float],
        *,
        lower_better: bool = False,
        score_range: tuple[float, float] | None = None,
        cost: float = 1.0,
        gamma: float = 0.05,
        epsilon: float = 0.1,
        trained_on: str = "the user's pictures and scores",
    ) -> Brisque:
        """Train a BRISQUE on other pictures (needs scikit-learn, the ``train`` extra).

        Args:
            images: pictures of at least 32x32, each anything that ``read_image`` takes.
            mos: one score for each.
            lower_better: whether lower scores are better.
            score_range: the ends of the scores' scale; by default the lowest and the highest score.
            cost: C of the support vector regression, for scores scaled to a deviation of 1.
            gamma: of the kernel exp(-gamma |a - b|^2) on features scaled to [-1, 1].
            epsilon: errors below it cost nothing, in deviations of the scores.
            trained_on: description of the pictures and scores, for the card.

        Returns:
            A new metric that saves and loads under the name "brisque" with ``weights=``.

        Raises:
            ValueError: unequal numbers of pictures and scores, fewer than two, or scores that are all the same.
        """
        from ..images import check_batch, read_image
        from ..registry import get_card

        card = get_card("brisque")
        with torch.no_grad():
            rows = [
                spatial_features(check_batch(read_image(image), card.min_size, torch.device("cpu")))[0]
                for image in images
            ]
        scores = torch.as_tensor(list(mos), dtype=torch.float64)
        if len(rows) != len(scores):
            raise ValueError(f"{len(rows)} pictures but {len(scores)} scores; give one for each")
        if len(rows) < 2 or not scores.isfinite().all() or scores.min() == scores.max():
            raise ValueError("give at least two pictures with finite scores that differ")

        parameters = train_regression(torch.stack(rows), scores, cost=cost, gamma=gamma, epsilon=epsilon)
        card = replace(
            card,
            summary="36 spatial statistics and a regression on scores chosen by the user",
            lower_better=lower_better,
            score_range=score_range or (scores.min().item(), scores.max().item()),
            typical_range=None,
            license="not stated",
            blind_spots="sees darkness only through a constant in the normalization",
            trained_on=trained_on,
            weights="",
            sha256="",
        )
        return cls(card, parameters)


def train_regression(
    features: Tensor, scores: Tensor, *, cost: float, gamma: float, epsilon: float
) -> dict[str, Tensor]:
    """Train the regression of ``Brisque.fit`` on features (N, 36) and scores (N,).

    Returns:
        The parameters that ``Brisque`` takes.

    Raises:
        ImportError: scikit-learn is missing.
    """
    try:
        from sklearn.svm import SVR
    except ImportError as error:
        raise ImportError("training BRISQUE needs scikit-learn; pip install 'lowlight_iqa[train]'") from error

    low, high = features.amin(0), features.amax(0)
    high = torch.where(high > low, high, low + 1)
    center, spread = scores.mean(), scores.std()
    model = SVR(C=cost, gamma=gamma, epsilon=epsilon)
    model.fit((2 * (features - low) / (high - low) - 1).numpy(), ((scores - center) / spread).numpy())

    coefficients = torch.from_numpy(model.dual_coef_[0].copy())
    return {
        "support": torch.from_numpy(model.support_vectors_.copy()),
        "coefficients": coefficients * spread,
        "offset": torch.tensor(float(model.intercept_[0])) * spread + center,
        "gamma": torch.tensor(gamma),
        "low": low,
        "high": high,
    }


def spatial_features(x: Tensor) -> Tensor:
    """Return the 36 features (N, 36) (TIP 2012, table I) of pictures (N, 3, H, W), RGB in [0, 1], in float64."""
    gray = nss.gray_levels(x)
    features: list[Tensor] = []
    for scale in (0, 1):
        own, pairs = picture_moments(gray, x.dtype, ((0, 1), (1, 0), (1, 1), (-1, 1)))
        features += nss.fit_ggd(own)
        fit = nss.fit_aggd(pairs)  # of (4, N)
        factor = nss.gamma_ratio(1 / fit.alpha, 3 / fit.alpha).sqrt()
        skew = (fit.right - fit.left) * nss.gamma_ratio(2 / fit.alpha, 1 / fit.alpha) * factor
        features += torch.stack([fit.alpha, skew, fit.left**2, fit.right**2], 1).flatten(0, 1).unbind()
        if scale == 0:
            gray = imresize(gray, 0.5)
    return torch.stack(features, -1)

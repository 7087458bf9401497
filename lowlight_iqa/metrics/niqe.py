"""NIQE: distance of a picture's statistics from those of pristine photographs.

Mittal, Soundararajan, Bovik, "Making a 'completely blind' image quality analyzer", IEEE Signal Processing Letters 2013.
Equal to the authors' MATLAB code (LIVE, niqe_release); docs/handcrafted.md has the comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..card import Card
from ..functional import nss
from ..functional.color import working
from ..functional.exportable import exporting, quadratic_form
from ..functional.maps import tile
from ..functional.patch_moments import patch_moments
from ..functional.resize import imresize
from ..images import Picture
from ..metric import Metric
from ..registry import register
from ..weights.files import Loaded, load_strictly

PATCH = 96
SHARP = 0.75  # patches of pristine pictures are used if they have this share of the sharpest one's deviation


@register(
    Card(
        name="niqe",
        summary="distance from the statistics of pristine photographs (official parameters)",
        source="Mittal et al., IEEE SPL 2013; reference implementation: LIVE's niqe_release (MATLAB)",
        lower_better=True,
        score_range=(0.0, 1000.0),  # photographs have 2 to 20; noise of one 8-bit step has about 700
        typical_range=(1.91, 16.4),
        license="LIVE, University of Texas at Austin: free with the notice in weights/bundled/NOTICE.niqe",
        zero_gradient=("blue noise of one step",),
        gradient="exact; zero on a picture whose gray levels all round to one, as where only blue varies by a step",
        min_size=PATCH,
        sees=("noise", "blur", "compression", "exposure"),
        blind_spots="sees darkness only through a constant in the normalization, so that the noise of a real dark "
        "picture can hide it; prefers mild noise to a smooth picture; unreliable where large parts are flat or "
        "clipped; what lies beyond the last whole patch of 96x96 is not looked at",
        preprocessing="gray levels as MATLAB's rgb2gray; patches of 96x96 at two scales",
        trained_on="125 pristine photographs (the authors')",
        weights="niqe.safetensors",
        sha256="60f177d995d8ee87f70fbaf5fc5527f3e5668ce5a1a03a45c0de86e27f1d8bcd",
    )
)
class NIQE(Metric):
    """Natural image quality evaluator; ``NIQE.fit`` builds one from other pristine pictures."""

    second_derivatives = False

    def __init__(self, card: Card, parameters: Mapping[str, Tensor]) -> None:
        """Build it from the "mean" (36,) and "covariance" (36, 36) of pristine patches."""
        super().__init__(card)
        self.mean: Tensor
        self.covariance: Tensor
        self.register_buffer("mean", torch.zeros(36))
        self.register_buffer("covariance", torch.zeros(36, 36))
        load_strictly(self, parameters)

    @classmethod
    def from_weights(cls, loaded: Loaded) -> NIQE:  # type: ignore[override]
        """Build it from a weights file."""
        return cls(loaded.card, loaded.tensors)

    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Return scores (N,), lower is better."""
        features, valid, _ = patch_features(x)
        weight = valid.to(features)
        mean = (features * weight).sum(1) / weight.sum(1).clamp_min(1)  # (N, 36), MATLAB's nanmean
        covariance = _covariance(features, valid.all(-1))
        pooled = (self.covariance.to(features) + covariance) / 2
        offset = self.mean.to(features) - mean
        if exporting():
            distance = quadratic_form(pooled, offset)
        else:
            inverse = torch.linalg.pinv(pooled, hermitian=True)
            distance = torch.einsum("ni,nij,nj->n", offset, inverse, offset)
        return distance.clamp_min(1e-12).sqrt().to(x.dtype)

    def maps_batch(self, x: Tensor) -> dict[str, Tensor]:
        """Return the distance of each patch of 96x96 from the pristine statistics.

        It is the score's formula with the patch's own features instead of their mean, and the picture's pooled
        covariance. A feature that is NaN in the official code counts as pristine. The score is not the mean of the map:
        it is the distance of the mean features. Beyond the last whole patch, which the score ignores, the map repeats
        the patch next to it.
        """
        features, valid, _ = patch_features(x)
        pooled = (self.covariance.to(features) + _covariance(features, valid.all(-1))) / 2
        offset = (features - self.mean.to(features)).where(valid, torch.zeros_like(features))
        inverse = torch.linalg.pinv(pooled, hermitian=True)
        distance = torch.einsum("npi,nij,npj->np", offset, inverse, offset).clamp_min(0).sqrt()
        grid = distance.unflatten(1, (x.shape[2] // PATCH, -1))
        return {"score": tile(grid, PATCH, x.shape[2:]).to(x.dtype)}

    @classmethod
    def fit(cls, images: Iterable[Picture], *, trained_on: str = "the user's pictures") -> NIQE:
        """Fit a NIQE to other pristine pictures than the authors'.

        Args:
            images: pristine pictures of at least 96x96, each anything that ``read_image`` takes.
            trained_on: description of the pictures, for the card.

        Returns:
            A new metric that saves and loads under the name "niqe" with ``weights=``.

        Raises:
            ValueError: fewer than two patches in all.

        Source: SPL 2013, section II-B: patches sharper than 0.75 of the picture's sharpest one.
        """
        from ..images import check_batch, read_image
        from ..registry import get_card

        card = get_card("niqe")
        rows = []
        with torch.no_grad():
            for image in images:
                x = check_batch(read_image(image), card.min_size, torch.device("cpu"))
                features, valid, sharpness = patch_features(x)
                chosen = valid.all(-1) & (sharpness > SHARP * sharpness.amax(1, keepdim=True))
                rows.append(features[chosen].cpu())

        stack = torch.cat(rows) if rows else torch.zeros(0, 36)
        if len(stack) < 2:
            raise ValueError(f"{len(stack)} usable patches of 96x96 are too few to fit to; give more pictures")
        card = replace(
            card,
            summary="distance from the statistics of pictures chosen by the user",
            license="not stated",
            trained_on=trained_on,
            weights="",
            sha256="",
        )
        return cls(card, {"mean": stack.mean(0), "covariance": torch.cov(stack.T)})


def patch_features(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the 36 features of every patch.

    Args:
        x: (N, 3, H, W), RGB in [0, 1].

    Returns:
        Features (N, P, 36); which of them are numbers in the official code, bool (N, P, 36); and the patches'
        sharpness (N, P), the mean local deviation.
    """
    gray = nss.gray_levels(x)
    gray = gray[:, : gray.shape[1] // PATCH * PATCH, : gray.shape[2] // PATCH * PATCH]
    features, valid = [], []
    sharpness = gray
    for patch in (PATCH, PATCH // 2):
        own, pairs, deviation = patch_moments(gray, x.dtype, ((0, 1), (1, 0), (1, 1), (1, -1)), patch)
        if patch == PATCH:
            sharpness = working(deviation)

        fit = nss.fit_aggd(own)  # of (T,)
        left, right = _scales(fit)
        features += [fit.alpha, (left + right) / 2]
        valid += [torch.ones_like(fit.has_left), fit.has_left & fit.has_right]

        fit = nss.fit_aggd(pairs)  # of (4, T)
        left, right = _scales(fit)
        skew = (right - left) * nss.gamma_ratio(2 / fit.alpha, 1 / fit.alpha)
        features += torch.stack([fit.alpha, skew, left, right], 1).flatten(0, 1).unbind()
        defined = [torch.ones_like(fit.has_left), fit.has_left & fit.has_right, fit.has_left, fit.has_right]
        valid += torch.stack(defined, 1).flatten(0, 1).unbind()
        if patch == PATCH:
            gray = imresize(gray, 0.5)

    columns, defined_columns = torch.stack(features, -1), torch.stack(valid, -1)  # (T, 36)
    per_picture = (x.shape[0], -1)  # T = N * P
    return (
        columns.unflatten(0, per_picture),
        defined_columns.unflatten(0, per_picture),
        sharpness.unflatten(0, per_picture),
    )


def _scales(fit: nss.Fit) -> tuple[Tensor, Tensor]:
    """Return the scale parameters beta of both sides (SPL 2013, eq. 7)."""
    factor = nss.gamma_ratio(1 / fit.alpha, 3 / fit.alpha).sqrt()
    return fit.left * factor, fit.right * factor


def _covariance(features: Tensor, rows: Tensor) -> Tensor:
    """Return MATLAB's nancov over the patches (N, P) that have all features; zero if fewer than two have."""
    weight = rows.to(features)[..., None]
    count = weight.sum(1, keepdim=True)
    centered = (features - (features * weight).sum(1, keepdim=True) / count.clamp_min(1)) * weight
    return centered.mT @ centered / (count - 1).clamp_min(1)

"""Train a small network that brightens dark pictures, with a quality metric as part of its loss.

    python examples/train_enhancer.py --pictures lol/train/low
    python examples/train_enhancer.py --pictures lol/train/low --metric leiq
    python examples/train_enhancer.py --pictures lol/train/low --reference lol/train/high --random-crops \
        --metric leiq --metric-weight 1 --metric niqe --metric-weight 0.3

Writes enhancer.safetensors, before_after.png and losses.csv. The same command runs on a GPU where there is one.

The loss is priors + sum of weight * metric.loss(enhanced), and with --reference weight * (mean absolute difference to
the reference): quality toward the best score and fidelity, as in IACA (arXiv 2302.11464). Every metric's loss is 0 at
the good and 1 at the bad end of the scores that real pictures get, so that weights are comparable.

References:
    Zero-DCE: Guo et al., Zero-Reference Deep Curve Estimation for Low-Light Image Enhancement, CVPR 2020.
    Zero-DCE++: Li, Guo and Loy, TPAMI 2021, whose idea it is to estimate the curves on a reduced picture.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from lowlight_iqa import Metric, create_metric, list_metrics, read_image
from lowlight_iqa.images import SUFFIXES

ITERATIONS, WIDTH, REDUCTION = 8, 32, 4

# Weights of the paper's code. The paper gives 20 for smoothness and 0.5 for color, relative to exposure; its formulas
# are sums, the code's are means, and its authors ask to follow the code (github.com/Li-Chongyi/Zero-DCE/issues/19).
PRIORS = {"spatial": 1.0, "exposure": 10.0, "color": 5.0, "smoothness": 200.0}

Term = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]  # enhanced, dark, reference -> scalar to minimize


class Enhancer(nn.Module):
    """Zero-DCE's network: seven 3x3 convolutions with symmetric skips, 79,416 parameters.

    It sees the picture reduced by ``REDUCTION``; its curves are enlarged to the picture's size.
    """

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, WIDTH, WIDTH, WIDTH, 2 * WIDTH, 2 * WIDTH, 2 * WIDTH)
        outputs = (WIDTH,) * 6 + (3 * ITERATIONS,)
        self.layers = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in zip(inputs, outputs, strict=True))
        nn.init.normal_(self.layers[-1].weight, std=0.02)  # start near the identity

    def curves(self, x: Tensor) -> Tensor:
        """Curve parameters (N, 24, h, w) in [-1, 1] of pictures (N, 3, H, W) in [0, 1]."""
        size = [max(1, round(side / REDUCTION)) for side in x.shape[2:]]
        y = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
        first, second, third, fourth, fifth, sixth, last = self.layers
        a = F.relu(first(y))
        b = F.relu(second(a))
        c = F.relu(third(b))
        d = F.relu(fourth(c))
        e = F.relu(fifth(torch.cat([c, d], 1)))
        f = F.relu(sixth(torch.cat([b, e], 1)))
        return torch.tanh(last(torch.cat([a, f], 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Enhanced pictures (N, 3, H, W) in [0, 1]."""
        return apply_curves(x, self.curves(x))


def apply_curves(x: Tensor, curves: Tensor) -> Tensor:
    """Zero-DCE's equation 3: x <- x + a x (1 - x), once for each three maps a; the range [0, 1] is kept."""
    for a in curves.split(3, 1):
        x = x + F.interpolate(a, size=x.shape[2:], mode="bilinear", align_corners=False) * x * (1 - x)
    return x.clamp(0, 1)  # rounding alone


def priors(enhanced: Tensor, dark: Tensor, curves: Tensor) -> dict[str, Tensor]:
    """Zero-DCE's four priors, each a scalar, unweighted (section 3.3, equations 4 to 7).

    Args:
        enhanced: (N, 3, H, W) in [0, 1].
        dark: the same pictures before.
        curves: (N, 24, h, w).
    """
    regions, before = (F.avg_pool2d(x.mean(1, keepdim=True), 4) for x in (enhanced, dark))  # (N, 1, H/4, W/4)
    changes = [(regions.diff(dim=d).abs() - before.diff(dim=d).abs()).square().mean() for d in (2, 3)]
    red, green, blue = enhanced.mean((2, 3)).unbind(1)  # (N,)
    return {
        "spatial": 2 * (changes[0] + changes[1]),  # four neighbors: each pair counts twice
        "exposure": (F.avg_pool2d(enhanced.mean(1, keepdim=True), 16) - 0.6).square().mean(),
        "color": ((red - green).square() + (red - blue).square() + (green - blue).square()).mean(),
        "smoothness": curves.diff(dim=2).square().mean() + curves.diff(dim=3).square().mean(),
    }


def weighted(parts: Mapping[str, Tensor]) -> Tensor:
    """The priors by the paper's weights, a scalar."""
    return torch.stack([weight * parts[name] for name, weight in PRIORS.items()]).sum()


def quality(metric: Metric) -> Term:
    """Return a metric as a term: 0 at the good end of the scores of real pictures, 1 at the bad end."""
    if metric.card.needs_reference:  # such as loe, which compares with the dark picture
        return lambda enhanced, dark, reference: metric.loss(enhanced, dark)
    return lambda enhanced, dark, reference: metric.loss(enhanced)


def fidelity(enhanced: Tensor, dark: Tensor, reference: Tensor | None) -> Tensor:
    """Mean absolute difference to the reference."""
    if reference is None:
        raise ValueError("fidelity needs a reference picture for every dark one; give a folder of references")
    return (enhanced - reference).abs().mean()


@dataclass(frozen=True)
class Settings:
    """How to train; all that a run depends on beside its pictures and terms."""

    steps: int = 300
    batch: int = 4
    size: int = 192  # side of the square views, in pixels
    rate: float = 1e-3  # Adam's, falling to 0 by a cosine
    random_crops: bool = False
    seed: int = 0


def batch_of(pictures: Sequence[Tensor], settings: Settings, draw: torch.Generator) -> Tensor:
    """Square views (N, C, size, size) of pictures (C, H, W) drawn at random.

    The largest square in the middle, or with ``random_crops`` any square from ``size`` up to the largest: other
    places at other scales every time, so that no pattern made for one of them pays.
    """
    views = []
    for place in torch.randint(len(pictures), (settings.batch,), generator=draw).tolist():
        views.append(square(pictures[place], settings.size, draw if settings.random_crops else None))
    return torch.stack(views)


def square(picture: Tensor, size: int, draw: torch.Generator | None = None) -> Tensor:
    """A square of a picture (C, H, W), resized to (C, size, size): the middle one, or a random one."""
    height, width = picture.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    if draw is not None:
        if side > size:
            side = int(torch.randint(size, side + 1, (), generator=draw))
        top, left = (int(torch.randint(length - side + 1, (), generator=draw)) for length in (height, width))
    cut = picture[None, :, top : top + side, left : left + side]
    return F.interpolate(cut, size=(size, size), mode="bilinear", antialias=True, align_corners=False)[0]


def train(
    pictures: Sequence[Tensor],
    terms: Mapping[str, tuple[Term, float]],
    settings: Settings,
    device: torch.device,
) -> tuple[Enhancer, list[dict[str, float]]]:
    """Train a network.

    Args:
        pictures: (3, H, W), dark ones in [0, 1]; or (6, H, W), with their references as the last three channels.
        terms: beside the priors; by name, each with its weight.
        settings: as above.
        device: where to compute.

    Returns:
        The network, and for each step the loss, its weighted priors and each term before it is weighted.
    """
    torch.manual_seed(settings.seed)
    draw = torch.Generator().manual_seed(settings.seed)
    network = Enhancer().to(device)
    optimizer = torch.optim.Adam(network.parameters(), settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)

    def parts_of(batch: Tensor) -> tuple[Tensor, Tensor | None]:
        return batch[:, :3], batch[:, 3:] if batch.shape[1] == 6 else None

    history = []
    for _ in (bar := tqdm(range(settings.steps), disable=None)):
        dark, reference = parts_of(batch_of(pictures, settings, draw).to(device))
        curves = network.curves(dark)
        enhanced = apply_curves(dark, curves)
        prior = priors(enhanced, dark, curves)
        loss, row = weighted(prior), {name: PRIORS[name] * value.item() for name, value in prior.items()}
        for name, (term, weight) in terms.items():
            value = term(enhanced, dark, reference)
            loss = loss + weight * value
            row[name] = value.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        history.append({"loss": loss.item(), **row})
        bar.set_postfix(loss=f"{loss.item():.4f}")
    return network, history


def enhance(network: Enhancer, dark: Tensor) -> Tensor:
    """One whole picture (3, H, W), rounded to 8 bits as a file holds it."""
    with torch.inference_mode():
        return (network(dark[None].to(next(network.parameters()).device))[0].cpu() * 255).round() / 255


def files(folder: Path) -> list[Path]:
    """The picture files of a folder, sorted.

    Raises:
        OSError: no folder, or none in it.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise FileNotFoundError(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return found


def read_pictures(paths: Sequence[Path], references: Path | None = None) -> list[Tensor]:
    """Pictures (3, H, W), or (6, H, W) with the reference of the same file name behind; kept in memory.

    Raises:
        ValueError, OSError: an unreadable picture; a reference that is missing or of another size.
    """
    pictures = []
    for path in paths:
        layers = [read_image(path)] + ([read_image(references / path.name)] if references else [])
        if len({layer.shape for layer in layers}) > 1:
            raise ValueError(f"{path} and its reference in {references} differ in size")
        pictures.append(torch.cat(layers))
    return pictures


def before_after(network: Enhancer, pictures: Sequence[Tensor], height: int = 200) -> Image.Image:
    """A grid, one row a picture: dark, enhanced and, where there is one, the reference."""
    rows = []
    for picture in pictures:
        row = torch.cat([picture[:3], enhance(network, picture[:3]), picture[3:]]).unflatten(0, (-1, 3))
        width = round(height * row.shape[3] / row.shape[2])
        row = F.interpolate(row, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
        rows.append((torch.cat(list(row), 2).permute(1, 2, 0) * 255).round().byte())
    grid = Image.new("RGB", (max(row.shape[1] for row in rows), height * len(rows)))
    for place, row in enumerate(rows):
        grid.paste(Image.fromarray(row.numpy()), (0, height * place))
    return grid


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and write what came of it."""
    default = Settings()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, required=True, help="folder of dark pictures")
    parser.add_argument("--reference", type=Path, help="folder of references with the same file names: fidelity")
    parser.add_argument("--fidelity-weight", type=float, default=10.0)
    parser.add_argument("--metric", action="append", default=[], choices=list_metrics(), help="may be repeated")
    parser.add_argument("--metric-weight", action="append", default=[], type=float, help="one for each; default 1")
    parser.add_argument("--random-crops", action="store_true", help="random crops and scales, against gaming")
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--batch", type=int, default=default.batch)
    parser.add_argument("--size", type=int, default=default.size, help="side of the views in pixels")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--device", default="auto", help="cpu, cuda, ...; auto takes a GPU where there is one")
    parser.add_argument("--out", type=Path, default=Path("runs/enhancer"))
    args = parser.parse_args(arguments)
    if args.metric_weight and len(args.metric_weight) != len(args.metric):
        parser.error(f"{len(args.metric)} --metric but {len(args.metric_weight)} --metric-weight; give one for each")
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device)
    terms = {
        name: (quality(create_metric(name, device=device)), weight)
        for name, weight in zip(args.metric, args.metric_weight or [1.0] * len(args.metric), strict=True)
    }
    if args.reference:
        terms["fidelity"] = (fidelity, args.fidelity_weight)
    pictures = read_pictures(files(args.pictures), args.reference)
    settings = Settings(args.steps, args.batch, args.size, default.rate, args.random_crops, args.seed)
    network, history = train(pictures, terms, settings, device)
    args.out.mkdir(parents=True, exist_ok=True)
    save_file({key: value.cpu() for key, value in network.state_dict().items()}, args.out / "enhancer.safetensors")
    before_after(network, pictures[:6]).save(args.out / "before_after.png")
    with (args.out / "losses.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", *history[0]])
        writer.writeheader()
        writer.writerows({"step": step, **row} for step, row in enumerate(history, 1))
    print(f"{args.out}: enhancer.safetensors, before_after.png, losses.csv")


if __name__ == "__main__":
    main()

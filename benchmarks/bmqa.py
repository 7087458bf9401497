"""Everything that the card of ``bmqa`` states, measured.

    python benchmarks/bmqa.py --data DATA [--weights DIR] [--ablation DIR ...] [--held-out]

DATA holds ``biq2021`` (train.csv, test.csv, images) and ``mle`` (MLE-training.json). Each DIR is what ``lowlight-iqa
train bmqa --stage caption`` wrote; those of --ablation were trained with a modality or a stage left out, and the others
are compared with the first one. Captions and changes are measured on held-out training pictures. Prints Markdown. Each
measurement takes a metric and DATA and returns the numbers that the card states, in its order, and their table.
"""

from __future__ import annotations

import argparse
import math
import platform
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from measures import pairs, speed
from tqdm import tqdm

import lowlight_iqa
from lowlight_iqa.data import Dataset, Rated, biq2021, mle
from lowlight_iqa.evaluation.correlation import plcc, srcc
from lowlight_iqa.metrics.bmqa import Bmqa
from lowlight_iqa.metrics.bmqa.slots import SLOTS, levels_of, slots_of
from lowlight_iqa.metrics.bmqa.vocabulary import Vocabulary, padded
from lowlight_iqa.training.bmqa import descriptions
from lowlight_iqa.training.bmqa.contrastive import srcc_of_words
from lowlight_iqa.training.degradations import Degradation, render

DRAWS = 1000
PICTURES = 100  # that are changed

# A change, the slot that must follow it, and whether its word must fall or rise; it may stay where it cannot move.
CHANGES: dict[str, tuple[Degradation, str, int]] = {
    "darkened by 3.3 stops": (Degradation(exposure=-3.32), "brightness", -1),
    "brightened by 3.3 stops": (Degradation(exposure=3.32), "brightness", 1),
    "brightened by 3.3 stops ": (Degradation(exposure=3.32), "exposure", -1),
    "noise of strength 0.7": (Degradation(noise=0.7), "noise", -1),
    "saturation 0.15": (Degradation(saturation=0.15), "contrast", -1),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", help="another directory of weights than the bundled one")
    parser.add_argument("--ablation", nargs="+", default=[], metavar="DIR", help="trained with parts left out")
    parser.add_argument("--held-out", action="store_true", help="held-out training pictures instead of the test split")
    args = parser.parse_args()
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    chosen = Dataset("biq2021", "held-out pictures", held_out(args.data))
    if not args.held_out:
        chosen = Dataset("biq2021", "test", biq2021.read(args.data / "biq2021", "test"))
    metric = make(args.weights)
    print(lowlight_iqa.evaluate(metric, chosen, progress=True), end="\n\n")
    for measurement in (pairs, captions, changes, words):
        print(measurement(metric, args.data)[1], end="\n\n")
    print(speed("bmqa", sorted((args.data / "lol" / "eval15" / "high").iterdir())[0], args.weights), end="\n\n")
    if args.ablation:
        ablation(args.ablation, chosen)


def make(weights: str | None) -> Bmqa:
    """The metric."""
    metric = lowlight_iqa.create_metric("bmqa", weights=weights)
    assert isinstance(metric, Bmqa)
    return metric


def held_out(data: Path) -> list[Rated]:
    """The training pictures that were not learned from."""
    return [item for item in biq2021.read(data / "biq2021", "train") if biq2021.held_out(item)]


@torch.inference_mode()
def captions(metric: Bmqa, data: Path) -> tuple[list[float], str]:
    """Slot accuracy, BLEU-4 and top-5 accuracy of the captions of pictures."""
    rng = np.random.default_rng(0)
    right: dict[str, list[bool]] = {name: [] for name in SLOTS}
    told, first_five = [], []
    items = held_out(data)
    for item in tqdm(items, desc="captions", disable=None):
        x = lowlight_iqa.read_image(item.path)
        levels = levels_of(x[None], metric.rules)
        levels["appearance"] = int(item.mos > metric.rules["appearance"][0])
        (caption,) = metric.caption(x)
        found = slots_of(caption)
        for name, level in levels.items():
            right[name].append(found.get(name) == level)
        reference = descriptions.write(levels, rng)
        told.append((caption, reference))
        tokens = padded([metric.network.vocabulary.encode(reference)])
        logits, _ = metric.network.captioner(metric.network.features(x[None]), tokens)
        first_five += (logits[0].topk(5, 1).indices == tokens[0, :, None]).any(1).tolist()
    shares = {name: float(np.mean(hits)) for name, hits in right.items()}
    scores = [100 * bleu(told), 100 * float(np.mean(first_five))]
    lines = [f"| slot, {len(items)} held-out pictures | right word |", "|---|---|"]
    lines += [f"| {name} | {share:.3f} |" for name, share in shares.items()]
    lines += ["", f"BLEU-4 {scores[0]:.2f} (the paper's captioner, on its own texts: 29.36), "
                  f"top-5 accuracy {scores[1]:.2f} (89.74)"]  # fmt: skip
    return [*shares.values(), *scores], "\n".join(lines)


def words(metric: Bmqa, data: Path) -> tuple[list[float], str]:
    """SRCC with people's scores of what MLE's descriptions alone tell, on held-out scenes."""
    said = [item for item in mle.read(data / "mle", "train", pictures=False) if biq2021.held_out(item, 5)]
    found = srcc_of_words(metric.network, said)
    text = f"""Score from MLE's descriptions alone, {len(said)} of held-out scenes: SRCC {found:.3f}
(the paper's text-only row, on MLIQ's human texts: 0.747)"""
    return [found], text


def bleu(pairs: Sequence[tuple[str, str]], longest: int = 4) -> float:
    """BLEU of captions, each with one reference, over the whole corpus (Papineni et al., ACL 2002)."""
    found, said, lengths = [0] * longest, [0] * longest, [0, 0]
    for pair in pairs:
        caption, reference = (Vocabulary.pattern.findall(text.lower()) for text in pair)
        lengths = [lengths[0] + len(caption), lengths[1] + len(reference)]
        for n in range(1, longest + 1):
            ours, theirs = (Counter(zip(*(text[i:] for i in range(n)), strict=False)) for text in (caption, reference))
            found[n - 1] += (ours & theirs).total()
            said[n - 1] += ours.total()
    if not all(found):
        return 0.0
    brevity = min(0.0, 1 - lengths[1] / lengths[0])
    return math.exp(brevity + sum(math.log(f / s) for f, s in zip(found, said, strict=True)) / longest)


@torch.inference_mode()
def changes(metric: Bmqa, data: Path) -> tuple[list[float], str]:
    """How often a slot's word follows a change of the picture."""
    lines = ["| change | slot | the caption's word follows | the measured word does |", "|---|---|---|---|"]
    ways: tuple[Callable[[torch.Tensor], dict[str, int]], ...] = (
        lambda x: slots_of(metric.caption(x)[0]),
        lambda x: levels_of(x[None], metric.rules),
    )
    followed: dict[str, list[list[bool]]] = {name: [] for name in CHANGES}
    for item in tqdm(held_out(data)[:PICTURES], desc="changes", disable=None):
        x = lowlight_iqa.read_image(item.path)
        before = [way(x) for way in ways]
        for place, (name, (how, slot, direction)) in enumerate(CHANGES.items()):
            draw = torch.Generator().manual_seed(place)
            changed = render(x, how, torch.randn(x.shape, generator=draw))
            after = [way(changed) for way in ways]
            end = 0 if direction < 0 else len(SLOTS[slot].words) - 1
            followed[name].append(
                [
                    slot in now and ((now[slot] - was.get(slot, end)) * direction > 0 or now[slot] == end)
                    for was, now in zip(before, after, strict=True)
                ]
            )
    shares = {name: np.mean(each, 0).tolist() for name, each in followed.items()}
    for name, (_, slot, _) in CHANGES.items():
        by_caption, by_rules = shares[name]
        lines.append(f"| {name.strip()} | {slot} | {by_caption:.2f} | {by_rules:.2f} |")
    return [by_caption for by_caption, _ in shares.values()], "\n".join(lines)


def ablation(directories: Sequence[str], chosen: Dataset) -> None:
    """One row for each directory; differences of SRCC are paired: both metrics on the same resampled pictures."""
    labels = np.array([item.mos for item in chosen.items])
    print(f"| BIQ2021, {chosen.split} | trained in stages | SRCC | difference | PLCC, raw |\n|---|---|---|---|---|")
    first = None
    for directory in directories:
        metric = make(directory)
        scores = lowlight_iqa.evaluate(metric, chosen, draws=1, progress=True).scores
        stages = [name for name in ("pretrain", "align", "score") if (Path(directory).parent / name).is_dir()]
        if first is None:
            first, difference = scores, ""
        else:
            rng = np.random.default_rng(0)
            draws = [rng.integers(0, len(labels), len(labels)) for _ in range(DRAWS)]
            gaps = [srcc(scores[rows], labels[rows]) - srcc(first[rows], labels[rows]) for rows in draws]
            low, high = np.percentile(gaps, [2.5, 97.5])
            difference = f"{low:+.3f} to {high:+.3f}"
        figures = f"{srcc(scores, labels):.4f} | {difference} | {plcc(scores, labels):.4f}"
        print(f"| {metric.network.config.modalities} | {', '.join(stages)} | {figures} |", flush=True)
    print(f"\nDifference to the first row: 95 % bootstrap interval, {DRAWS} resamples of the pictures.\n")


if __name__ == "__main__":
    main()

"""The paper behind each metric, as BibTeX, from citations.bib."""

from pathlib import Path

from .registry import get_card


def papers() -> dict[str, str]:
    """Read the entries, by the metric that a comment names above each."""
    blocks = Path(__file__).with_suffix(".bib").read_text(encoding="utf-8").removeprefix("% ").split("\n\n% ")
    named = (block.strip().split("\n", 1) for block in blocks)
    return {name: entry for name, entry in named}


def bibtex(name: str) -> str:
    """Return the BibTeX entry of the paper behind a metric; ValueError names the card's source if none is listed."""
    card = get_card(name)
    if card.bibtex:
        return card.bibtex
    entries = papers()
    for key in (name, name.split("-")[0]):  # leiq-b16 is of leiq's paper
        if key in entries:
            return entries[key]
    raise ValueError(f"no BibTeX is listed for {name}; its card says: {card.source}")

"""Write everything a comparison gives: tables, scores, summary, figures and the page."""

import json
from collections.abc import Sequence
from pathlib import Path

from ..extras import require
from ..wholefile import make_folder, write_whole
from .pictures import Box
from .result import Comparison


def import_extra() -> None:
    """Import what the report is made with."""
    for name in ("jinja2", "matplotlib"):
        require(name, f"the report needs {name}", "report")


def write(comparison: Comparison, out: Path, *, crop: Box | None, show: Sequence[str] | None) -> Path:
    """Write the report into a folder; return the page's path."""
    import_extra()
    from .figures import write_figures
    from .page import render
    from .pictures import make_strips
    from .tables import facts, latex, markdown, write_scores

    make_folder(out)
    write_whole(out / "table.tex", latex(comparison))
    write_whole(out / "table.md", markdown(comparison))
    write_scores(comparison, out / "scores.csv")
    write_whole(out / "summary.json", json.dumps(facts(comparison), indent=2) + "\n")

    figures = write_figures(comparison, out / "figures", crop, show)
    strips = make_strips(comparison, out, crop)
    page = out / "index.html"
    write_whole(page, render(comparison, strips, figures, chosen_crop=crop is None))
    return page

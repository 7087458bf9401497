"""Write everything a comparison gives: tables, scores, summary, figures and the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .pictures import Box
from .result import Comparison


def import_extra() -> None:
    """Import what the report is made with.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ValueError(f'the report needs {error.name}: pip install "lowlight_iqa[report]"') from error


def write(comparison: Comparison, out: Path, *, crop: Box | None, show: Sequence[str] | None) -> Path:
    """Write the report into a folder; return the page's path."""
    import_extra()
    from .figures import write_figures
    from .page import render
    from .pictures import make_strips
    from .tables import facts, latex, markdown, write_scores

    out.mkdir(parents=True, exist_ok=True)
    (out / "table.tex").write_text(latex(comparison), encoding="utf-8")
    (out / "table.md").write_text(markdown(comparison), encoding="utf-8")
    write_scores(comparison, out / "scores.csv")
    (out / "summary.json").write_text(json.dumps(facts(comparison), indent=2) + "\n", encoding="utf-8")

    figures = write_figures(comparison, out / "figures", crop, show)
    strips = make_strips(comparison, out, crop)
    page = out / "index.html"
    page.write_text(render(comparison, strips, figures, chosen_crop=crop is None), encoding="utf-8")
    return page

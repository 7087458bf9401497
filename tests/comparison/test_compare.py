"""compare: every score is the metric's own, every picture is accounted for, and the files say what the result says."""

import csv
import io
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import lowlight_iqa
from lowlight_iqa import read_image
from lowlight_iqa.cli.main import main
from lowlight_iqa.comparison.pictures import relative_box, where_different
from lowlight_iqa.comparison.tables import escape_csv, escape_markdown, escape_tex, latex, markdown, marks
from lowlight_iqa.data import Dataset, Rated
from lowlight_iqa.registry import get_class
from lowlight_iqa.scoring.cache import FILE

from .conftest import METHODS, make

METRICS = ("contrast", "exposure", "loe", "toy")
NASTY = ["<script>alert(1)<", "a_b%&$x^{y}", "=HYPERLINK(1)", "tick`|pipe"]


def run(folders, *names, metrics=("contrast", "exposure"), **options):
    wanted = {label: folders[label] for label in names or METHODS}
    return lowlight_iqa.compare(wanted, metrics, draws=100, **options)


@pytest.fixture(scope="module")
def result(folders):
    return lowlight_iqa.compare(
        {label: folders[label] for label in METHODS},
        METRICS,
        inputs=folders["input"],
        references=folders["reference"],
        draws=200,
    )


@pytest.fixture(scope="module")
def report(result, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "out"
    result.write(out)
    return out


def test_scores_are_the_metrics_own(result, folders):
    assert result.names == tuple("012345")
    for name in ("contrast", "toy"):
        metric = lowlight_iqa.create_metric(name)
        own = metric([folders["noisy"] / f"{index}_noisy.png" for index in range(6)])
        assert result.scores[name][:, 1] == pytest.approx(own.numpy(), abs=1e-4)
        assert result.beside["input"][name][0] == pytest.approx(metric(folders["input"] / "0_low.png").item(), abs=1e-4)


def test_loe_compares_each_picture_with_its_own_input(result, folders):
    loe = lowlight_iqa.create_metric("loe")
    own = loe(folders["noisy"] / "3_noisy.png", reference=folders["input"] / "3_low.png").item()
    assert result.scores["loe"][3, 1] == pytest.approx(own)
    assert "loe" not in result.beside["input"]


def test_full_reference_figures_are_marked_and_know_the_order(result):
    assert [name for name, m in result.measures.items() if m.needs == "full reference"] == ["psnr", "ssim", "ciede2000"]
    for name in ("psnr", "ciede2000"):
        assert result.statistics[name].rank.tolist() == [1, 2, 3]
    assert result.beside["input"]["psnr"].mean() < result.scores["psnr"].min()


def test_attributes_and_sentences_are_of_the_metric_that_has_them(result, folders):
    own = lowlight_iqa.create_metric("toy").assess(folders["dim"] / "2.png")
    assert result.explainer == "toy"
    assert result.attributes["dim"][2] == pytest.approx(list(own.attributes.values()), abs=1e-3)
    assert result.sentences["dim"][2] == own.description


def test_agreement_is_counted_picture_by_picture(result):
    rows = {(row.measure, row.figure): row for row in result.agreement}
    ours, theirs = -result.scores["loe"], result.scores["psnr"]
    alike = [
        (ours[i, a] > ours[i, b]) == (theirs[i, a] > theirs[i, b])
        for i in range(6)
        for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    assert rows["loe", "psnr"].pairs == pytest.approx(np.mean(alike))
    low, high = rows["loe", "psnr"].pairs_interval
    assert low <= rows["loe", "psnr"].pairs <= high


def test_disagreement_points_at_the_right_pictures(folders, tmp_path):
    for label in METHODS:  # on picture 4 alone the methods differ
        (tmp_path / label).mkdir()
        for index in range(5):
            source = folders["bright"] / f"{index}_out.png"
            if index == 4:
                source = next(folders[label].glob("4*"))
            shutil.copy(source, tmp_path / label / f"{index}.png")
    found = run({label: tmp_path / label for label in METHODS})
    assert found.spread.argmax() == 4
    assert (found.spread[:4] == 0).all()
    assert found.statistics["contrast"].letters == ("a", "a", "a")


@pytest.mark.parametrize("name", METHODS)
def test_a_missing_picture_is_refused_and_with_partial_left_out_for_all(folders, tmp_path, name):
    shutil.copytree(folders[name], tmp_path / name)
    next((tmp_path / name).glob("2*")).unlink()
    broken = {**folders, name: tmp_path / name}
    with pytest.raises(ValueError, match=rf"1 of 6 pictures have no partner.*'2' \(not in {name}\).*--partial"):
        run(broken)
    found = run(broken, partial=True)
    assert found.names == tuple("01345")
    assert any("1 of 6 pictures" in note for note in found.notes())


def test_a_damaged_picture_is_refused_and_with_partial_left_out_for_all(folders, tmp_path):
    shutil.copytree(folders["dim"], tmp_path / "dim")
    (tmp_path / "dim" / "1.png").write_bytes(b"no picture")
    broken = {**folders, "dim": tmp_path / "dim"}
    with pytest.raises(ValueError, match=r"1 pictures? could not be scored: .*1\.png.*--partial"):
        run(broken)
    found = run(broken, partial=True, inputs=folders["input"], references=folders["reference"])
    assert found.names == tuple("02345")
    assert list(found.failed) == ["1"]
    assert all(len(scores) == 5 for scores in found.scores.values())


def test_a_reference_of_another_size_is_met(folders, tmp_path):
    shutil.copytree(folders["reference"], tmp_path / "reference")
    Image.new("RGB", (50, 60)).save(tmp_path / "reference" / "0.png")
    with pytest.raises(ValueError, match="must be the same size"):
        run(folders, references=tmp_path / "reference")


def test_one_picture_one_method_two_methods(tmp_path):
    one = make(tmp_path, count=1)
    found = run(one, metrics=["contrast"], out=tmp_path / "out")
    assert any("1 picture: too few" in note for note in found.notes())
    assert "±" not in markdown(found)
    single = run(one, "bright", metrics=["contrast"], out=tmp_path / "single")
    assert marks(single, "contrast") == [""]
    assert not single.agreement
    pair = run(one, "bright", "dim", references=one["reference"])
    assert sorted(marks(pair, "contrast")) == ["", "best"]  # the worse of two is no second
    assert pair.agreement[0].srcc is None


def test_few_pictures_are_said_to_be_too_few(folders, tmp_path):
    few = make(tmp_path, count=4)
    assert any("no two methods can be told apart" in note for note in run(few).notes())


def test_folders_of_one_name_are_told_apart(tmp_path):
    for parent in ("x", "y"):
        make(tmp_path / parent, count=1)
    folders = [tmp_path / parent / "bright" for parent in ("x", "y")]
    assert lowlight_iqa.compare(folders, ["contrast"]).methods == ("x/bright", "y/bright")
    with pytest.raises(ValueError, match="given twice"):
        lowlight_iqa.compare([folders[0], folders[0]], ["contrast"])


def test_wrong_use_is_met(folders):
    with pytest.raises(TypeError, match="a list of folders"):
        lowlight_iqa.compare(str(folders["dim"]), ["contrast"])
    with pytest.raises(ValueError, match="no method"):
        lowlight_iqa.compare([], ["contrast"])
    with pytest.raises(ValueError, match="loe compares with the dark input; give --input"):
        lowlight_iqa.compare([folders["dim"]], ["loe"])
    with pytest.raises(ValueError, match="no metric is called 'leig'"):
        lowlight_iqa.compare([folders["dim"]], ["leig"])
    with pytest.raises(ValueError, match="must not be called 'input'"):
        lowlight_iqa.compare([folders["input"]], ["contrast"])
    with pytest.raises(ValueError, match=r"crop 60,0,20,20 lies outside picture '[0-5]' of 68 x 52"):
        run(folders, out=folders["dim"].parent / "refused", crop=(60, 0, 20, 20))


def test_everything_is_written(report):
    assert {file.name for file in report.iterdir()} == {
        "index.html",
        "table.tex",
        "table.md",
        "scores.csv",
        "summary.json",
        "figures",
        "images",
    }
    figures = {"ranking", "distributions", "attributes", "agreement", "strips"}
    kinds = {file.name for file in (report / "figures").iterdir()}
    assert kinds == {f"{name}.{kind}" for name in figures for kind in ("pdf", "png")}


def test_csv_has_a_row_for_each_picture_method_and_metric(result, report):
    rows = list(csv.DictReader(io.StringIO((report / "scores.csv").read_text(encoding="utf-8"))))
    found = {(row["picture"], row["method"], row["metric"]): float(row["score"]) for row in rows}
    assert len(found) == len(rows)
    for name, scores in result.scores.items():
        for i, picture in enumerate(result.names):
            for k, method in enumerate(METHODS):
                assert found[picture, method, name] == pytest.approx(scores[i, k], rel=1e-5)
    assert ("0", "reference", "loe") not in found
    assert ("0", "dim", "toy.noise") in found


def test_summary_holds_the_statistics(result, report):
    facts = json.loads((report / "summary.json").read_text())
    toy = facts["measures"]["toy"]
    assert toy["mean"] == pytest.approx(dict(zip(METHODS, result.scores["toy"].mean(0), strict=True)))
    assert toy["p_value"]["bright"]["dim"] == toy["p_value"]["dim"]["bright"]
    assert toy["share_won"]["bright"]["dim"] + toy["share_won"]["dim"]["bright"] == 1
    assert facts["measures"]["psnr"]["needs"] == "full reference"


def test_latex_marks_best_and_second(result):
    table = latex(result)
    body = table[table.index(r"\midrule") : table.rindex(r"\midrule")].splitlines()[1:]
    assert [len(re.findall(r"(?<!\\)&", line)) for line in body] == [7, 7, 7]
    column = [line.split("&")[5] for line in body]  # psnr
    assert r"\textbf{" in column[0]
    assert r"\underline{" in column[1]
    assert r"\pm" in column[2]
    assert r"psnr $\uparrow$" in table
    assert r"loe $\downarrow$" in table


NAMES_FOR_TEX = [
    *NASTY,
    "Retinex_v2 (50% & #1) $3",
    "[$x^2$] ~ {a}\\b",
    '*<é|"q"> -- ---',
    "``a'' ?`b ,,c",
    "\\end{tabular}",
]


@pytest.fixture(scope="module")
def table_of_names(folders):
    """The LaTeX table of methods whose names hold every character that means something to TeX."""
    methods = {name: folders[METHODS[place % 3]] for place, name in enumerate(NAMES_FOR_TEX)}
    references, inputs = folders["reference"], folders["input"]
    found = lowlight_iqa.compare(methods, ["contrast", "loe"], inputs=inputs, references=references, draws=50)
    return latex(found)


COMMAND = re.compile(
    r"\\(begin|end|centering|caption|label|setlength|tabcolsep|resizebox|ifdim|width|linewidth|else|fi|toprule|midrule|"
    r"cmidrule|bottomrule|multicolumn|textbf|underline|textit|scriptsize|pm|mathrm|uparrow|downarrow|char|"
    r"text(backslash|asciicircum|asciitilde|less|greater|bar))"
)


def test_a_latex_table_of_any_names_holds_its_own_commands_alone(table_of_names):
    comment, *lines = table_of_names.splitlines()
    assert comment.startswith("% needs ")
    body = "\n".join(lines).replace("{!}{%\n", "{!}{")
    depth, math = 0, False
    for token in re.findall(r"\\[A-Za-z]+|\\.|.", body, re.DOTALL):
        if token[0] == "\\" and token[1].isalpha():
            assert COMMAND.fullmatch(token)
        elif token[0] == "\\":
            assert token[1] in "\\{}$&#%_,"
        depth += (token == "{") - (token == "}")
        math ^= token == "$"
        assert depth >= 0
        assert token not in ("#", "%", "~", '"', "<", "|")
        assert token not in ("_", "^") or math
    assert depth == 0
    assert not math
    rows = [line for line in lines if line.endswith(r" \\")][2:]
    assert len(rows) == len(NAMES_FOR_TEX) + 2
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {5}
    assert not [row for row in rows if row.startswith(("[", "*"))]  # which the end of the row before would take


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_latex_table_compiles(table_of_names, tmp_path):
    document = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{table}\end{document}"
    (tmp_path / "table.tex").write_text(table_of_names, encoding="utf-8")
    (tmp_path / "document.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (tmp_path / "document.pdf").stat().st_size > 10_000


def test_names_are_escaped_for_every_format():
    assert escape_tex("a_b%&$x^{y}\\~#") == (r"a\_b\%\&\$x\textasciicircum{}\{y\}\textbackslash{}\textasciitilde{}\#")
    assert escape_tex("a\nb--c---d") == "a b-{}-c-{}-{}-d"
    assert escape_tex('["a"]*') == r"{[}{\char34}a{\char34}]{*}"
    assert escape_markdown("a|b`*_<c>\n") == r"a\|b\`\*\_\<c\> "
    for formula in ("=1+1", "+1", "-1", "@x", "\t=1", " =1"):
        assert escape_csv(formula) == f"'{formula}"
    assert escape_csv("a=1") == "a=1"


class Tags(HTMLParser):
    """Collects tags, attributes that could run, and text."""

    def __init__(self):
        super().__init__()
        self.tags, self.handlers, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.handlers += [key for key, value in attrs if key.startswith("on") or "javascript:" in (value or "")]

    def handle_data(self, data):
        self.text.append(data)


def test_no_name_of_a_file_gets_into_the_page_as_markup(tmp_path):
    source = make(tmp_path / "made", count=1)
    names = [name for name in NASTY if "/" not in name]
    names += ['"><img src=x onerror=alert(1)>', "</script><b>", "{{ 7 * 7 }}", "é 夜"]
    folders = {}
    for method in ("<b>bold<", "$\\frac{a}$_^%"):
        folders[method] = tmp_path / f"method{len(folders)}"
        folders[method].mkdir()
        for name in names:
            shutil.copy(source["dim"] / "0.png", folders[method] / f"{name.replace('/', '_')}.png")
    found = lowlight_iqa.compare(folders, ["contrast"], out=tmp_path / "out", draws=10)

    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert tags.tags.count("script") == 2  # the data and the code
    assert "b" not in [tag for tag in tags.tags if tag == "bold"]
    assert not tags.handlers
    assert tags.tags.count("img") == page.count('loading="lazy"') + 1  # and the viewer's
    text = "".join(tags.text)
    assert "{{ 7 * 7 }}" in text
    assert "<b>bold<" in text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)

    rows = list(csv.reader(io.StringIO((tmp_path / "out" / "scores.csv").read_text(encoding="utf-8"))))
    assert not [cell for row in rows[1:] for cell in row[:2] if cell.startswith("=")]
    assert len(found.names) == len(names)


def test_a_second_writing_draws_no_picture_again(result, report):
    before = {file.name: file.stat().st_mtime_ns for file in (report / "images").glob("*.jpg")}
    stray = report / "images" / f"{'0' * 20}-crop.jpg"
    stray.write_bytes(b"of an earlier run")
    next(iter((report / "images").glob("*-thumb.jpg"))).unlink()
    result.write(report)
    after = {file.name: file.stat().st_mtime_ns for file in (report / "images").glob("*.jpg")}
    assert before.keys() == after.keys()  # the stray is gone, the missing one is back
    assert sum(before[name] != after[name] for name in before) == 1


@pytest.fixture
def calls(monkeypatch):
    """How many pictures ``contrast`` and ``toy`` have scored."""
    found = {}
    for name in ("contrast", "toy"):
        cls = get_class(name)

        def counting(self, x, reference=None, *, name=name, real=cls.score_batch):
            found[name] = found.get(name, 0) + len(x)
            return real(self, x)

        monkeypatch.setattr(cls, "score_batch", counting)
    return found


def test_a_second_comparison_reads_and_another_metric_scores_alone(folders, tmp_path, calls):
    first = run(folders, metrics=("contrast",), cache=tmp_path)
    assert calls == {"contrast": 18}  # three methods of six pictures
    both = run(folders, metrics=("contrast", "toy"), cache=tmp_path)
    assert calls == {"contrast": 18, "toy": 18}
    again = run(folders, metrics=("contrast", "toy"), cache=tmp_path)
    assert calls == {"contrast": 18, "toy": 18}
    assert np.array_equal(first.scores["contrast"], again.scores["contrast"])
    assert again.sentences == both.sentences
    assert again.sentences["dim"][0]


def test_a_picture_that_changed_under_its_name_is_scored_again(folders, tmp_path, calls):
    first = run(folders, metrics=("contrast",), cache=tmp_path)
    shutil.copytree(folders["dim"], tmp_path / "dim")
    shutil.copy(next(folders["bright"].glob("3*")), tmp_path / "dim" / "3.png")  # whose content is known
    changed = run({**folders, "dim": tmp_path / "dim"}, metrics=("contrast",), cache=tmp_path)
    assert changed.scores["contrast"][3, 2] == first.scores["contrast"][3, 0]
    assert calls == {"contrast": 18}


def test_compare_and_evaluate_share_their_scores(folders, tmp_path, calls):
    run(folders, metrics=("contrast",), cache=tmp_path)
    files = sorted(folders["bright"].iterdir())
    rated = Dataset("bright", "all", [Rated(file, float(place)) for place, file in enumerate(files)])
    found = lowlight_iqa.evaluate("contrast", rated, cache=tmp_path, draws=5)
    assert calls == {"contrast": 18}
    assert found.lumas == pytest.approx([255 * read_image(file).mean().item() for file in files], rel=0.1)
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


DYING = """
import os, sys
from lowlight_iqa.cli.main import main
from lowlight_iqa.comparison import full_reference, pictures
from lowlight_iqa.metrics.contrast import Contrast

left, places = int(sys.argv[1]), {"score": (Contrast, "score_batch"), "measure": (full_reference, "measure"),
                                  "view": (pictures, "_save")}
where, name = places[sys.argv[2]]
real = getattr(where, name)

def dying(*args):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
    return real(*args)

setattr(where, name, dying)
main(sys.argv[3:])
"""


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_it_writes_the_same(folders, tmp_path):
    command = ["compare", *(str(folders[label]) for label in METHODS), "-m", "contrast,loe", "--draws", "50"]
    command += ["--input", str(folders["input"]), "--reference", str(folders["reference"])]

    def dying(left, place):
        arguments = [*command, "--cache", str(tmp_path / "cache"), "-o", str(tmp_path / "out")]
        code = [sys.executable, "-c", DYING, str(left), place, *arguments]
        return subprocess.run(code, check=False, timeout=120).returncode

    assert dying(9, "score") == -9
    with sqlite3.connect(tmp_path / "cache" / FILE) as database:
        assert database.execute("SELECT COUNT(*) FROM scores").fetchone()[0] >= 5
    assert dying(5, "measure") == -9
    assert dying(20, "view") == -9
    (tmp_path / "out" / "images" / f"{'0' * 20}-crop.1-2.part").write_bytes(b"cut short")
    assert main([*command, "--cache", str(tmp_path / "cache"), "-o", str(tmp_path / "out")]) == 0
    assert main([*command, "--cache", str(tmp_path / "other"), "-o", str(tmp_path / "whole")]) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_crop_is_where_methods_differ_beyond_exposure():
    base = np.random.default_rng(0).integers(60, 120, (120, 160, 3), dtype=np.uint8)
    other = base + 100  # brighter everywhere
    other[70:90, 100:130] = 0
    x, y, w, h = where_different([base, other])
    assert (w, h) == (0.25, 0.25)
    assert x * 160 <= 100
    assert (x + w) * 160 + 1 >= 130
    assert y * 120 <= 70
    assert (y + h) * 120 + 1 >= 90


def test_identical_methods_are_cropped_in_the_middle():
    same = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    x, y, w, h = where_different([same, same])
    assert x + w / 2 == pytest.approx(0.5, abs=0.02)
    assert y + h / 2 == pytest.approx(0.5, abs=0.02)


def test_the_users_crop_is_taken():
    picture = np.zeros((100, 200, 3), np.uint8)
    assert relative_box({"a": picture}, ["a"], (20, 10, 50, 40), "p") == (0.1, 0.1, 0.25, 0.4)


def test_on_the_command_line(folders, tmp_path, capsys):
    arguments = ["compare", str(folders["bright"]), f"Ours={folders['dim']}", "-m", "contrast"]
    status = main([*arguments, "--reference", str(folders["reference"]), "-o", str(tmp_path / "out"), "--draws", "50"])
    out = capsys.readouterr().out
    assert status == 0
    assert "| Ours |" in out
    assert out.splitlines()[-1] == str(tmp_path / "out" / "index.html")
    assert main(["compare", str(folders["dim"]), "-m", "loe", "-o", str(tmp_path / "no")]) == 2
    assert "give --input" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_missing_extra_is_named_before_anything_is_scored(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ValueError, match=r'jinja2: pip install "lowlight_iqa\[report\]"'):
        run(folders, out=folders["dim"].parent / "never")
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ValueError, match=r"references need scikit-image"):
        run(folders, references=folders["reference"])

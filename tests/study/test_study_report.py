"""What a study's reports show, from trials that were run."""

import pytest
from tiny_photos import QUICK

from lessonkit.ablation import run_ablation, Technique
from lessonkit.comparison import summarize
from lessonkit.study.plots import plot_ablation
from lessonkit.study.report import ablation_report, markdown_report
from lessonkit.study.tables import fold_name, format_table
from lessonkit.study.techniques import comparisons


def test_picture_has_a_line_for_each_technique(images):
    trials = run_ablation(images, ["normalization", Technique("idle")], seeds=2, **QUICK)
    summary = summarize(trials, pairs=comparisons(["normalization", Technique("idle")]))
    ax = plot_ablation(summary, margin=0.01)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["normalization", "idle"]
    assert ax.texts[0].get_text() == "first look"
    ends = [100 * end
            for end in summary.loc[summary.technique == "normalization", ["low", "high"]].iloc[0]]
    assert list(ax.lines[0].get_xdata()) == pytest.approx(ends)  # the interval that the verdict reads
    assert "97.5% interval" in ax.get_xlabel()


def test_markdown_shows_names_as_they_are(images, tmp_path):
    trials = run_ablation(images, ["mixup", "label_smoothing", "mixup+label_smoothing"], seeds=2,
                          out=tmp_path, **QUICK)
    ablation_report(images, trials, tmp_path, ["mixup", "label_smoothing", "mixup+label_smoothing"],
        title="a|b <script>`*_", command="lessonkit ablate '```x'")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "# a\\|b \\<script\\>\\`\\*\\_" in text and "````sh\nlessonkit ablate '```x'\n````" in text
    assert "## Together" in text and "together minus the sum of both" in text
    assert "Equal for all: pixels trained on" in text and "all settings were fixed before" in text
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "together minus the sum of both" in page and page.count("<script") == 1
    head, rule, *rows = [line for line in text.splitlines() if line.startswith("|")][:5]
    cells = [len(line.replace("\\|", "").split("|")) for line in (head, rule, *rows)]
    assert len(set(cells)) == 1


@pytest.mark.parametrize(
    "name, lines",
    [
        ("tta", ["tta"]),
        ("progressive_resizing+tta+mixup", ["progressive_resizing+", "tta+mixup"]),
        ("a" * 40, ["a" * 40]),
    ],
)
def test_long_names_are_folded_at_a_plus(name, lines):
    assert fold_name(name) == "\n".join(lines) and fold_name(name).replace("\n", "") == name


def test_the_table_of_a_terminal_has_no_line_that_is_too_long(images, tmp_path):
    trials = run_ablation(images, None, seeds=2, out=tmp_path, **QUICK)
    told = format_table(summarize(trials, pairs=comparisons()))
    assert max(map(len, told.splitlines())) <= 150
    assert "all 9 hold together in 95% of studies" in " ".join(told.split())
    assert markdown_report("x", summarize(trials, pairs=comparisons()), trials).count("\n| ") > 12

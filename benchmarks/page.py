"""The page that the benchmark leaves: the machine, a picture of all goals, the tables, the curves of
growth."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from growth import Curve
from ratios import Line

from lessonkit.study.report import machine, versions

TITLES = {
    "loading": "Photos to the network: an epoch of training and validation, batches of 64",
    "mixing": "MixUp and the losses",
    "predicting": "Test-time augmentation",
    "resizing": "Growing pictures, from stored trainings (intervals over seeds)",
    "selecting": "Choosing a subset",
    "studying": "A whole study",
    "recipe": "The best recipe against the chapter's, with fastai's loader",
    "growth": "Growth: four times as many things",
}
# Why goals are missed, as far as rows beside them tell.
REASONS = {
    "loading": "The row without loading says what fastai's own loop adds to the network's steps, that "
               "of the batches alone what cutting, mirroring and normalizing them take: an epoch can't "
               "come nearer to the bare steps than by the two together.",
    "mixing": "*Least* does what can't be left out, in PyTorch's own calls and without a look at any "
              "value. *Shares* draws one for each photo, from a generator with a seed, and mixes "
              "nothing. *Idle* is a callback that does nothing, without a backward pass: what is left "
              "is the loop's own, with the loss of the labels as they are, which fastai computes before "
              "a callback can mix it (fastai's MixUp puts a loss of its own in that place before "
              "training begins). Where such rows together are above a goal, shorter code can't meet it. "
              "What is left beyond them is Python, and looks at the values that were given: a share "
              "of 1.2, a partner or a class that doesn't exist, soft labels that don't sum to 1. In "
              "batches of 64 photos or more the pass over the photos decides; in small ones these looks "
              "do, some microseconds each, which a training step of milliseconds doesn't show.",
    "resizing": "These are findings about growing pictures, not about code: in the median, growing "
                "saves little time at 64 px, and a third or more at 128 px.",
    "selecting": "Two cores share one memory: where the stored page was made, two processes of bare "
                 "training steps do about 1.3 times the work of one (see the next table), and 0.6 asks "
                 "for 1.67. At 5,000 rows four fifths of our time are NumPy's own products of all rows "
                 "with a few candidates (profiled), 1.3 for each pick.",
    "studying": "Two trainings at once share one memory and one cache: the row of bare steps says how "
                "much two processes can gain on this machine.",
}
MET, MISSED = "#2b6ca3", "#c8501e"


def where() -> dict[str, str]:
    """The machine, and the versions of what runs on it."""
    return {name: str(value) for name, value in (machine() | versions()).items()}


def text(parts: Mapping[str, Sequence[Line]], curves: Sequence[Curve], about: str,
         measured: Mapping[str, str], ratios_png: str = "", growth_png: str = "") -> str:
    """The page in Markdown; `measured` has the day of each part."""
    here = "; ".join(f"{name}: {value}" for name, value in where().items())
    goals = [line for lines in parts.values() for line in lines if line.limit is not None]
    days = set(measured.values())
    when = f" on {days.pop()}" if len(days) == 1 else ""
    lines = ["# Benchmark", "", f"`make bench` measured this{when}. {about}", "", f"{here}.", ""]
    lines += ["Contenders take turns, once a round; a ratio is that of their medians, and its spread "
              "that of the rounds.", ""]
    lines += [f"**{sum(line.met() for line in goals)} of {len(goals)} goals are met.**", ""]
    if ratios_png:
        lines += [f"![How far each measured value lies from its goal]({ratios_png})", ""]
    for part, found in parts.items():
        lines += [f"## {TITLES[part]}", ""]
        if not when:
            lines += [f"Measured on {measured[part]}.", ""]
        lines += ["| measured | median | over rounds | goal | met |",
                  "|---|---|---|---|---|"]
        lines += [*(line.row() for line in found), ""]
        lines += [REASONS[part], ""] if part in REASONS else []
    if growth_png:
        lines += [f"![Seconds and memory over the number of things]({growth_png})", ""]
    for curve in curves:
        lines += [
            f"| {curve.name}: {curve.things} | " + " | ".join(f"{n:,}" for n in curve.numbers) + " |"
        ]
        lines += ["|---|" + "---|" * len(curve.numbers)]
        lines += ["| seconds | " + " | ".join(f"{value:.2f}" for value in curve.seconds) + " |"]
        lines += ["| memory, MiB | " + " | ".join(f"{value:.0f}" for value in curve.mib) + " |", ""]
    return "\n".join(lines)


def draw_goals(parts: Mapping[str, Sequence[Line]], file: Path) -> None:
    """Each value as a share of what its goal allows, on one scale."""
    lines = [line for measured in parts.values() for line in measured if line.limit is not None][::-1]
    figure, axes = plt.subplots(figsize=(11, 0.8 + 0.27 * len(lines)), layout="constrained")
    for y, line in enumerate(lines):
        low, middle, high = (share(line, value)
                             for value in (min(line.each()), line.value(), max(line.each())))
        colour = MET if line.met() else MISSED
        ends = [value for value in (low, high) if math.isfinite(value)] + [middle]
        axes.plot([min(ends), max(ends)], [y, y], color=colour, lw=1.5, alpha=0.6)
        axes.plot(middle, y, "o" if line.met() else "s", color=colour, ms=6,
                  label="met" if line.met() else "missed")
    axes.axvline(1, color="black", lw=1)
    axes.set(xscale="log", ylim=(-0.7, len(lines) - 0.3),
             xlabel="share of what the goal allows (logarithmic):\nleft of 1 it is met")
    axes.set_yticks(range(len(lines)), [line.name for line in lines], fontsize=8)
    ticks = [0.01, 0.03, 0.1, 0.3, 0.5, 1, 2]
    low, high = axes.get_xlim()
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlim(low, max(high, 2.2))
    axes.tick_params(which="minor", bottom=False, labelbottom=False)
    axes.grid(axis="x", alpha=0.3)
    handles = dict(zip(*axes.get_legend_handles_labels()[::-1]))
    axes.legend(handles.values(), handles, loc="lower left")
    figure.savefig(file, dpi=110)
    plt.close(figure)


def share(line: Line, value: float) -> float:
    """Below 1: better than the goal."""
    return value / line.limit if line.sign == "<=" else line.limit / value


def draw_growth(curves: Sequence[Curve], file: Path) -> None:
    """Seconds (logarithmic) and memory over the number of things (logarithmic)."""
    figure, both = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for axes, what in zip(both, ("seconds", "mib")):
        for curve, marker in zip(curves, "os^Dv"):
            axes.plot(curve.numbers, getattr(curve, what), marker=marker,
                      label=f"{curve.name} ({curve.things})")
        axes.set(xscale="log", xlabel="number of things")
        axes.grid(alpha=0.3)
    both[0].set(yscale="log", ylabel="seconds", title="time")
    both[1].set(ylim=0, ylabel="MiB above what was used before", title="memory at its peak")
    ends = both[0].get_xlim()
    both[0].plot([1000, 100_000], [0.001, 0.1], color="grey", ls=":", label="in proportion")
    both[0].set_xlim(ends)
    both[0].legend(fontsize=8)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def write(out: Path, parts: Mapping[str, Sequence[Line]], curves: Sequence[Curve], about: str,
          measured: Mapping[str, str]) -> None:
    """The page, and its pictures beside it."""
    goals, grown = (out.with_name(f"{out.stem}_{what}.png") for what in ("goals", "growth"))
    draw_goals(parts, goals)
    if curves:
        draw_growth(curves, grown)
    page = text(parts, curves, about, measured, goals.name, grown.name if curves else "")
    out.write_text(page, encoding="utf-8")

"""The page of a report: an answer first, a table that can be read without seeing it, photos, and nothing
from outside."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_photos import QUICK

from lessonkit.ablation import run_ablation
from lessonkit.comparison import summarize
from lessonkit.study.report import ablation_report, bottom_line, cost_table, forest, html_report


class Page(HTMLParser):
    """Each tag with its attributes and the text in it."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        one = {"tag": tag, "text": "", **dict(attributes)}
        self.tags.append(one)
        if tag not in ("meta", "img", "wbr"):
            self.open.append(one)

    def handle_startendtag(self, tag, attributes):  # as in SVG
        self.tags.append({"tag": tag, "text": "", **dict(attributes)})

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for one in self.open:
            one["text"] += data

    def all(self, tag, **wanted):
        return [one for one in self.tags if one["tag"] == tag and wanted.items() <= one.items()]


@pytest.fixture(scope="module")
def study(images, tmp_path_factory):
    """A study of three techniques with two seeds, and its folder."""
    out, names = tmp_path_factory.mktemp("study"), ["mixup", "tta", "label_smoothing"]
    trials = run_ablation(images, names, seeds=2, out=out, **QUICK)
    ablation_report(images, trials, out, names, title="<i>Mine</i>", command="lessonkit ablate '<i>'")
    return trials, out


@pytest.fixture(scope="module")
def page(study):
    return Page((study[1] / "report.html").read_text(encoding="utf-8"))


def test_the_page_asks_nobody_for_anything_and_names_stay_text(page):
    links = [one[name] for one in page.tags for name in ("href", "src", "action", "data") if name in one]
    assert links and all(link.startswith("data:image/jpeg;base64,") for link in links)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp",
                         "".join(one["text"] for one in page.all("html")))
    assert (not page.all("i") and page.all("h1")[0]["text"] == "<i>Mine</i>"
            and len(page.all("script")) == 1)


def test_tables_and_pictures_can_be_read_without_seeing_them(page):
    assert all(one.get("scope") in ("col", "row") for one in page.all("th"))
    assert (len(page.all("caption")) == len(page.all("table"))
            and all(one["text"].strip() for one in page.all("caption")))
    boxes, ids = page.all("div", **{"class": "wide"}), {one.get("id") for one in page.tags}
    assert boxes and all(one["tabindex"] == "0" and one["aria-labelledby"] in ids for one in boxes)
    assert all(one["alt"].strip() for one in page.all("img"))
    drawn = page.all("svg", role="img")
    assert (len(drawn) == 3
            and all(re.search(r": [+−]?\d+\.\d \([^)]+ to [^)]+\) points, first look", one["aria-label"])
                    for one in drawn))
    assert page.all("html")[0]["lang"] == "en" and page.all("meta", name="viewport")


def test_the_answer_comes_first_and_the_verdict_in_the_second_column(page):
    heads = [one["text"] for one in page.all("th") if one.get("scope") == "col"]
    assert heads[:2] == ["technique", "verdict"]
    body = page.all("main")[0]["text"]
    assert body.index("A first look with 2 "
                      "seeds") < body.index("verdict\n") < body.index("What it costs")


def test_commands_stay_what_they_are_and_no_argument_of_theirs_is_broken(study, images, tmp_path):
    """A browser breaks lines at hyphens too; what may not be broken is a whole of its own."""
    trials, out = study
    command = "lessonkit ablate 'my  photos' --time-budget 20m --out a-b-c --techniques mixup,tta"
    told = ["The answer.", f"Next: 3 more seeds, about 1 min: {command} --seeds 5"]
    ablation_report(images, trials, out, ["mixup", "tta", "label_smoothing"], command=command,
                    closing=lambda summary: told)
    found = Page((out / "report.html").read_text(encoding="utf-8"))
    whole = [one["text"] for one in found.all("span", **{"class": "whole"})]
    assert {"--time-budget", "a-b-c", "--seeds"} <= {*whole} and not any(" " in word for word in whole)
    assert (command in [one["text"] for one in found.all("pre")]
            and told[1] in [one["text"] for one in found.all("p")])


def test_the_report_shows_their_own_photos(page, images):
    told = [one["alt"] for one in page.all("img")]
    assert f"mixup: 60% {images.classes[0]}, 40% {images.classes[1]}" in told
    assert [one for one in told if re.search(r"\.png, \w+, wrong in \d+ of 8 runs", one)]
    assert [one for one in told if re.search(r"\.png, \w+, taken for \w+ in \d+ of 8 runs", one)]


def test_what_was_answered_is_what_was_right(study, images):
    trials, out = study
    labels = images.labels[images.indices("valid")]
    for name in trials["id"]:
        answers, right = (np.load(out / part / f"{name}.npy") for part in ("answers", "correct"))
        assert ((answers == labels) == right).all()


def test_without_the_photos_there_is_still_a_report(study, tmp_path):
    from lessonkit.images import ImageSet

    trials, out = study
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(20):
            Image.new("RGB", (9, 9), (number, 0, 0)).save(tmp_path / label / f"{number}.png")
    gone = ImageSet.from_folder(tmp_path)
    (tmp_path / "a").rename(tmp_path / "moved")
    ablation_report(gone, trials, out, ["mixup", "tta", "label_smoothing"])
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "On your photos" not in text and "What it costs" in text


def made_up(verdicts: list[str], differences: list[float], width: float = 0.01) -> pd.DataFrame:
    rows = [{"technique": "baseline", "verdict": "reference", "seeds": 5, "difference": np.nan}]
    rows += [{"technique": f"t{i}", "verdict": v, "seeds": 5, "difference": d, "low": d - width,
              "high": d + width} for i, (v, d) in enumerate(zip(verdicts, differences))]
    return pd.DataFrame(rows).assign(size=32, epochs=5)


@pytest.mark.parametrize("verdicts, told", [
    (["helps", "hurts", "can't tell"], "t0 (+2.0) helps; t1 (−3.0) hurts; 1 can't be told from luck"),
    (["helps", "can't tell", "helps"], "t0 (+2.0), t2 (+0.4) help; 1 can't be told from luck"),
    (["no difference beyond 0.01", "can't tell", "can't tell"],
     "no technique is known to help or to hurt; 1 makes no difference that matters; "
     "2 can't be told from luck"),
])
def test_bottom_line(verdicts, told):
    assert bottom_line(made_up(verdicts, [0.02, -0.03, 0.004])) == f"On these photos: {told}."


def test_the_axis_shows_the_differences_and_not_the_width_of_an_interval_that_says_nothing():
    drawn = forest(made_up(["first look"] * 2, [0.02, -0.01], width=0.9))
    places = [row["middle"] for row in drawn["rows"]]
    assert max(places) - min(places) > 20 and all(row["beyond"] == [True, True] for row in drawn["rows"])
    narrow = forest(made_up(["helps", "hurts"], [0.02, -0.03]))
    assert not any(any(row["beyond"]) for row in narrow["rows"])
    labels = [text for _, text in narrow["ticks"]]
    assert labels[0].startswith("−") and labels[-1].startswith("+") and "0" in labels


def test_a_report_without_a_margin_in_which_nothing_differs():
    """With `--margin 0` and one seed the axis had no width, and the report ended in a math error."""
    drawn = forest(made_up(["first look"], [0.0], width=np.nan), margin=0.0)
    assert drawn["rows"][0]["middle"] == drawn["zero"] == 50 and len(drawn["ticks"]) > 2


def test_a_ratio_within_the_noise_is_hidden():
    """Worked by hand: twice as much each time is ×2; a factor that is now 0.8, now 1.25 is noise."""
    trials = pd.DataFrame([
        {"technique": name, "seed": seed, "size": 32, "epochs": 1, "accuracy": 0.5,
         "core_seconds": 10.0 * times[seed]}
        for name, times in {"baseline": (1, 1.1, 0.9), "twice": (2, 2.2, 1.8),
                            "same": (0.8, 1.25, 0.9)}.items()
        for seed in range(3)
    ])
    assert cost_table(trials)["training, ratio"].tolist() == ["", "×2.00", "within noise"]
    assert (cost_table(trials[trials["seed"] == 0])["training, ratio"].tolist()
            == ["", "within noise", "within noise"])


def test_the_lines_that_use_the_network_are_shown_where_there_are_any():
    trials = pd.DataFrame([
        {"technique": name, "seed": seed, "size": 32, "epochs": 1, "accuracy": 0.5 + seed / 10,
         "train_seconds": 1.0}
        for name in ("baseline", "mixup") for seed in range(2)
    ])
    summary = summarize(trials)
    assert "Use the trained network" not in html_report("x", summary, trials)
    assert "load_it(&#39;&lt;a&gt;&#39;)" in html_report("x", summary, trials, usage="load_it('<a>')")

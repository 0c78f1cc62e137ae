"""axe-core finds nothing wrong with our pages, light or dark, wide or narrow, and none has to be
scrolled sideways."""

import lab as desk
import nbformat
import numpy as np
import pandas as pd
import pytest

from lessonkit.comparison import summarize
from lessonkit.images import load_images
from lessonkit.selection.gallery import subset_gallery
from lessonkit.study.pictures import confusions, most_often_wrong, technique_pictures
from lessonkit.study.report import html_report
from lessonkit.subset_selection import select_subset

axe_core = pytest.importorskip("axe_playwright_python.sync_playwright", reason='needs axe-core: '
                               'pip install -c constraints.txt -e ".[dev,browser]"')


COMMAND = ("lessonkit ablate photos --time-budget 20m --techniques-from my-file.py --no-split-folders "
           "--batch-size 8")


def report() -> str:
    """The report of a made-up study: long names, an interval beyond the edge, photos, a failed trial."""
    rng, images = np.random.default_rng(0), load_images()
    names = {"baseline": 0, "mixup": 0.03, "progressive_resizing+mixup+label_smoothing+tta": -0.04,
             "tta": 0.001}
    trials = pd.DataFrame([
        {"id": f"{name}-{seed}", "technique": name, "seed": seed, "size": 64, "epochs": 5,
         "accuracy": 0.7 + gain + rng.normal(0, 0.01),
         "nll": 0.8, "train_seconds": 20 + rng.normal(), "predict_seconds": 1.0}
        for name, gain in names.items() for seed in range(6)
    ])
    labels = images.labels[images.indices("valid")]
    answers = {name: np.where(rng.random(len(labels)) < 0.3, 0, labels) for name in trials["id"]}
    right = {name: given == labels for name, given in answers.items()}
    photos = {"techniques": technique_pictures(images,
                                               ["normalization", "mixup", "label_smoothing", "tta"], 64),
              "confused": confusions(images, answers), "wrong": most_often_wrong(images, right, answers)}
    classes = pd.DataFrame({"class": images.classes, "photos": 50, "baseline": "70.0%"})
    failed = pd.DataFrame([{"technique": "mixup", "seed": 7, "error": "RuntimeError: out of memory"}])
    return html_report("Which techniques help?", summarize(trials), trials,
                       {"mixup": "Two photos at once."}, classes, {"lr": 0.005}, COMMAND, failed,
                       [f"Next: {COMMAND}"], photos=photos, usage=f"network = load({60 * 'a-'!r})")


def gallery() -> str:
    images = load_images().take(range(0, 1000, 25))
    train = images.indices("train")
    features = np.random.default_rng(0).normal(size=(len(train), 4))
    return subset_gallery(images, features, select_subset(features, 10, images.labels[train]),
                          "Ten photos", ["A note."])


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A report, a gallery, and every lesson."""
    folder = tmp_path_factory.mktemp("pages")
    for name, make in (("report", report), ("gallery", gallery)):
        (folder / f"{name}.html").write_text(make(), encoding="utf-8")
    for path in desk.notebooks.lessons():
        notebook = nbformat.read(path, as_version=4)
        desk.notebooks.write_page(notebook, folder / f"{path.stem}.html",
                                  desk.notebooks.navigation(path))
    return sorted(folder.glob("*.html"))


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_and_nothing_has_to_be_scrolled_sideways(browser, pages, scheme, width):
    assert len(pages) == 2 + len(desk.notebooks.lessons())
    look_at(browser, pages, scheme, width)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.timeout(3600)
def test_axe_finds_no_violation_on_the_site(browser, scheme):
    pages = sorted((desk.ROOT / "_site").rglob("*.html"))
    if not pages:
        pytest.skip("needs the site: make site")
    look_at(browser, pages, scheme, 1280)


def look_at(browser, pages, scheme: str, width: int) -> None:
    """Open each page and let axe-core judge it."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(300_000)
    for path in pages:
        page = context.new_page()
        page.goto(path.as_uri())
        if path.stem in ("report", "gallery"):
            page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        found = axe_core.Axe().run(page).response["violations"]
        told = [(one["id"], [node["html"][:120] for node in one["nodes"][:3]]) for one in found]
        assert not told, (path.stem, told)
        assert page.evaluate("document.documentElement.scrollWidth <= "
                             "document.documentElement.clientWidth"), path.stem
        page.close()
    context.close()


def test_a_column_of_the_table_of_classes_is_sorted_by_a_click(browser, pages):
    page = browser.new_page()
    page.goto(next(path for path in pages if path.stem == "report").as_uri())
    page.locator("summary", has_text="Every class").click()
    names = page.locator("table.sortable tbody th")
    first = names.all_inner_texts()
    button = page.locator("table.sortable thead button").first
    button.click()
    button.click()
    assert names.all_inner_texts() == sorted(first, reverse=True)
    assert page.locator("table.sortable th[aria-sort=descending]").count() == 1
    page.close()


@pytest.mark.parametrize("width", [1280, 400, 320])
def test_a_command_is_broken_between_its_arguments_only(browser, pages, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(next(path for path in pages if path.stem == "report").as_uri())
    heights = page.evaluate("""[...document.querySelectorAll('.whole')].map(one => {
        const range = document.createRange(); range.selectNodeContents(one);
        return [one.textContent, new Set([...range.getClientRects()].map(rect => rect.top)).size]; })""")
    assert len([word for word, _ in heights if word == "--time-budget"]) == 2 and all(
        lines == 1 for _, lines in heights
    )
    code = page.locator("pre.code")
    assert code.evaluate("one => one.scrollWidth > one.clientWidth") or width == 1280
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.close()

"""The page of the chosen photos, and what tells whether they teach more than random ones."""

import re

import numpy as np

from lessonkit.photos.image_set import ImageSet
from lessonkit.selection.gallery import probe_choice, subset_gallery
from lessonkit.subset_selection import select_subset


def clouds():
    """Two classes, each of a large cloud and a small one; random choice often misses the small ones."""
    rng = np.random.default_rng(0)
    middles = np.repeat([[0, 0], [8, 0], [4, 0], [12, 0]], [90, 10, 90, 10], axis=0)
    return middles + rng.normal(0, 0.3, (200, 2)), np.repeat([0, 1], 100)


def test_a_choice_that_knows_all_clouds_beats_random_ones():
    x, y = clouds()
    x = np.concatenate([x, (x[:, :1] > 6) * 5.0], axis=1)
    probe = probe_choice(x, y, select_subset(x, 8, y, method="k_center").indices)
    assert 0 <= probe.low <= probe.random <= probe.high <= 1
    assert "photos right from the chosen ones" in str(probe) and re.search(
        r"95% of draws: [\d.]+% to [\d.]+%", str(probe)
    )


def test_random_rows_cannot_be_told_from_random_rows():
    x, y = clouds()
    within = 0
    for seed in range(20):
        picks = select_subset(x, 20, y, method="random", seed=seed).indices
        probe = probe_choice(x, y, picks, draws=40, seed=100 + seed)
        within += probe.low <= probe.chosen <= probe.high
    assert within >= 16


def test_where_nothing_can_be_told_nothing_is():
    x, y = clouds()
    assert probe_choice(x, y, np.arange(200)) is None and probe_choice(x, y, np.arange(5)) is None


def test_the_page_shows_each_class_and_what_a_pick_stands_for(photo_set):
    evil = "<script>alert(1)</script>"
    images = ImageSet(photo_set.paths, photo_set.labels, [evil, "b"], photo_set.split)
    train = images.indices("train")
    features = np.arange(len(train), dtype=float)[:, None] * [1, 2]
    chosen = select_subset(features, 2, images.labels[train])
    page = subset_gallery(images, features, chosen, "Few", ["a note"])
    assert "<script" not in page and "&lt;script&gt;" in page and "a note" in page
    assert page.count("<img") == 5 and all(f'{path.name}, ' in page
                                           for path in (images.paths[row] for row in train))
    assert "stands for 2 others" in page and "stands for 1 other," in page
    assert not re.search(r'(src|href)="(?!data:)', page)

"""The picture of a subset."""

import numpy as np
import pytest

from lessonkit.subset_selection import select_subset, show_subset


def test_show_subset_marks_the_picks(photos):
    train = photos.indices("train")
    x = np.random.default_rng(0).standard_normal((len(photos), 3))
    subset = select_subset(x[train], 4, photos.labels[train]).of_rows(train)
    figure = show_subset(photos, x, subset, picks=3)
    words = " ".join(text.get_text() for axis in figure.axes for text in [axis.title, axis._left_title])
    assert "4 of 12 images" in words and "stands for" in words
    assert len(show_subset(photos, x[:, :1], subset, picks=2, neighbours=0).axes) == 1 + 2
    with pytest.raises(ValueError, match="one for each"):
        show_subset(photos, x[:5], subset)

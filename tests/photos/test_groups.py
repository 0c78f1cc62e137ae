"""Photos that belong together: near copies across the split are told, and groups stay on one side
of it."""

import io

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image, ImageEnhance

from lessonkit.images import ImageSet, load_images
from lessonkit.photos.image_set import describe_copies, near_copies, split_rows
from lessonkit.photos.readers import list_folder, list_table, read_groups


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=60),
       st.integers(0, 5))
def test_a_group_is_never_on_both_sides_and_each_class_keeps_one_to_train_on(photos, seed):
    labels, groups = np.array([label for label, _ in photos]), np.array(
        [f"g{group}" for _, group in photos]
    )
    split = split_rows([str(i) for i in range(len(photos))], labels, 0.2, seed, groups)
    assert set(split) <= {"train", "valid"}
    assert not {*groups[split == "train"]} & {*groups[split == "valid"]}
    single = [label for label in set(labels)
              if len({*groups[labels == label]} - {*groups[labels != label]}) > 1]
    assert all((split[labels == label] == "train").any() for label in single)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=50), st.integers(0, 3))
def test_photos_that_stand_alone_are_split_as_without_groups(labels, seed):
    names = [f"{i}.png" for i in range(len(labels))]
    assert (split_rows(names, np.array(labels), 0.3, seed).tolist()
            == split_rows(names, np.array(labels), 0.3, seed, names).tolist())


def test_about_the_share_is_set_aside():
    labels, groups = np.repeat([0, 1], 500), np.repeat(np.arange(200), 5)
    split = split_rows([str(i) for i in range(1000)], labels, 0.2, 0, [f"g{g}" for g in groups])
    assert [(split[labels == label] == "valid").sum() for label in (0, 1)] == [100, 100]


@pytest.fixture
def shop(tmp_path):
    """Two classes of ten photos, two of each scene."""
    rng = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "shop" / label).mkdir(parents=True)
        for number in range(10):
            Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(
                tmp_path / "shop" / label / f"{number}.png"
            )
    rows = [f"{label}/{number}.png,{label}{number // 2}" for label in "ab" for number in range(10)]
    (tmp_path / "groups.csv").write_text("path,scene\n" + "\n".join(rows) + "\n")
    return tmp_path


def test_groups_from_a_table_beside_a_folder(shop):
    images = ImageSet.from_listing(read_groups(shop / "groups.csv", list_folder(shop / "shop")))
    train, valid = ({*images.groups[images.indices(part)]} for part in ("train", "valid"))
    assert len(valid) == 2 and not train & valid and len(images.indices("valid")) == 4
    few = images.take(images.indices("valid"))
    assert {*few.groups} == valid


def test_groups_from_a_column(shop):
    rows = [f"{label}/{number}.png,{label},{number % 3 or ''}" for label in "ab" for number in range(10)]
    (shop / "shop/t.csv").write_text("path,label,thing\n" + "\n".join(rows) + "\n")
    listing = list_table(shop / "shop/t.csv", group_col="thing")
    assert (listing.groups["a/1.png"] == listing.groups["b/4.png"] == "1"
            and "a/3.png" not in listing.groups)
    images = ImageSet.from_listing(listing)
    assert not {*images.groups[images.indices("train")]} & {*images.groups[images.indices("valid")]}


@pytest.mark.parametrize("text, told", [
    ("path,scene\na/77.png,x\n", "a photo that isn't among those"), ("path\na/1.png\n", "two columns"),
    ("", "can't be read"),
])
def test_what_is_no_table_of_groups(shop, text, told):
    (shop / "wrong.csv").write_text(text)
    with pytest.raises(ValueError, match=told):
        read_groups(shop / "wrong.csv", list_folder(shop / "shop"))


def test_groups_that_do_not_fit():
    with pytest.raises(ValueError, match="one group for each of 2 photos"):
        ImageSet(["a", "b"], [0, 1], ["x", "y"], ["train", "train"], ["g"])


def saved_again(picture: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=60)
    return Image.open(stream).convert("RGB")


CHANGES = {
    "saved again": saved_again,
    "smaller": lambda picture: picture.resize((picture.width * 2 // 3, picture.height * 2 // 3)),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_near_copies_are_found(tmp_path, change):
    """Ten drawings, of which three stand on the other side once more, changed a little."""
    drawings = load_images()
    rows, paths, split = range(0, 1000, 100), [], []
    for number, row in enumerate(rows):
        picture = Image.open(drawings.paths[row]).convert("RGB")
        paths.append(tmp_path / f"{number}.png")
        picture.save(paths[-1])
        split.append("train" if number < 5 else "valid")
        if number < 3:
            paths.append(tmp_path / f"{number}-copy.png")
            CHANGES[change](picture).save(paths[-1])
            split.append("valid")
    images = ImageSet(paths, [0] * len(paths), ["a"], split)
    found = near_copies(images, progress=False)
    pairs = {(paths[row].name, paths[other].name) for row, other, _ in found.itertuples(index=False)}
    assert pairs == {(f"{number}-copy.png", f"{number}.png") for number in range(3)}
    assert describe_copies(images, found).startswith("3 validation photos are near copies of training "
                                                     "photos, such as")
    assert describe_copies(images, found.iloc[:0]) == ""

"""What people have: folders and tables in the layouts that were met, read as they are meant, and said
aloud."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lessonkit.images import ImageSet
from lessonkit.photos.readers import Listing, list_folder, list_table, part_of


def photos(root: Path, *places: str, n: int = 2, ending: str = ".png") -> Path:
    """Write `n` small photos into each of some folders."""
    for place in places:
        (root / place).mkdir(parents=True, exist_ok=True)
        for number in range(n):
            Image.fromarray(np.full((8, 8, 3), 10 * number, np.uint8)).save(
                root / place / f"{number}{ending}"
            )
    return root


def parts(listing: Listing) -> dict[str, set[str]]:
    """The classes in each part."""
    return {part: {label for label, where, _ in listing.rows if where == part}
            for _, part, _ in listing.rows}


# --- the parts


@pytest.mark.parametrize("name, part", [
    ("train", "train"), ("Training", "train"), ("training_set", "train"), ("seg_train", "train"),
    ("TRAIN", "train"),
    ("train_images", "train"), ("images-train", "train"), ("train2017", "train"), ("val", "valid"),
    ("Validation", "valid"),
    ("dev", "valid"), ("eval", "valid"), ("val_set", "valid"), ("valid", "valid"), ("test", "test"),
    ("Testing", "test"),
    ("seg_test", "test"), ("test_folder", "test"),
    ("trainer", None), ("cat", None), ("station", None), ("devil", None), ("contest", None),
    ("trains", None), ("value", None),
])
def test_names_of_parts(name, part):
    assert part_of(name) == part


@pytest.mark.parametrize("train, valid", [
    ("train", "val"), ("Training", "Validation"), ("training_set", "dev"), ("seg_train", "eval"),
    ("TRAIN", "Valid"),
])
def test_parts_are_found_under_their_usual_names(tmp_path, train, valid):
    found = list_folder(photos(tmp_path, *(f"{part}/{label}"
                                           for part in (train, valid) for label in ("cat", "dog"))))
    assert parts(found) == {"train": {"cat", "dog"}, "valid": {"cat", "dog"}}


def test_a_test_part_validates_where_there_is_no_other_and_says_so(tmp_path):
    found = list_folder(photos(tmp_path, "Training/cat", "Training/dog", "Test/cat", "Test/dog"))
    assert parts(found) == {"train": {"cat", "dog"}, "valid": {"cat", "dog"}}
    assert "Test is for validation, since there is no other part for it." in found.notes


def test_a_test_part_beside_a_validation_part_is_left_alone_and_says_so(tmp_path):
    found = list_folder(photos(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog", "test/cat",
                               "test/dog"))
    assert (parts(found)["test"] == {"cat", "dog"}
            and "test isn't used: val is for validation." in found.notes)
    assert len(ImageSet.from_listing(found).indices("valid")) == 4


def test_parts_that_are_nested_once_more(tmp_path):
    found = list_folder(photos(tmp_path, "train/train/cat", "train/train/dog", "valid/valid/cat",
                               "valid/valid/dog"))
    assert parts(found) == {"train": {"cat", "dog"}, "valid": {"cat", "dog"}}


def test_unlabelled_test_photos_are_left_out_and_told(tmp_path):
    """The layout of Keras' examples and of competitions: test/test_folder/1.jpg."""
    found = list_folder(photos(tmp_path, "train/cat", "train/dog", "test/test_folder", n=5))
    assert parts(found) == {"train": {"cat", "dog"}}
    assert any("Left out" in note and "test" in note for note in found.notes)
    assert ImageSet.from_listing(found).counts()["valid"].tolist() == [1, 1]


def test_folds(tmp_path):
    found = list_folder(photos(tmp_path,
                               *(f"fold{k}/{label}" for k in (1, 2, 3) for label in ("cat", "dog"))))
    assert sum(part == "valid" for _, part, _ in found.rows) == 4 and all(
        "fold3" in name for _, part, name in found.rows if part == "valid"
    )
    assert found.notes == ["fold3 is for validation, the other folds for training."]


def test_a_class_called_train(tmp_path):
    photos(tmp_path, "bus", "car", "train")
    assert parts(list_folder(tmp_path)) == {"train": {"bus", "car", "train"}}
    photos(tmp_path, "train/steam")  # now the word might mean a part
    assert "train" in parts(list_folder(tmp_path, split_folders=False))["train"]


def test_folders_beside_the_parts_are_named(tmp_path):
    found = list_folder(photos(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog", "extra"))
    assert any("Left out" in note and "extra" in note for note in found.notes)


@pytest.mark.parametrize("name",
                         ["@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "__MACOSX", ".thumbnails"])
def test_folders_of_systems_are_no_classes(tmp_path, name):
    assert parts(list_folder(photos(tmp_path, "cat", "dog", name)))["train"] == {"cat", "dog"}
    photos(tmp_path, f"cat/{name}")
    assert len(list_folder(tmp_path).rows) == 4


# --- nested classes


def test_shelves_of_a_supermarket_are_read_to_the_innermost_folder(tmp_path):
    found = list_folder(photos(tmp_path, "Fruit/Apple/Golden", "Fruit/Apple/Gala", "Fruit/Pear",
                               "Milk/Whole", "Milk/Oat"))
    assert parts(found)["train"] == {"Golden", "Gala", "Pear", "Whole", "Oat"}
    (note,) = found.notes
    assert "read as 5 classes" in note and "there would be 2: classes='top'" in note
    assert parts(list_folder(tmp_path, classes="top"))["train"] == {"Fruit", "Milk"}


def test_albums_within_classes_are_not_classes(tmp_path):
    found = list_folder(photos(tmp_path, "cat/2021", "cat/2022", "dog/2021", "dog/2022"))
    assert parts(found)["train"] == {"cat", "dog"}
    assert "read as 2 classes" in found.notes[0] and "there would be 4: classes='leaf'" in found.notes[0]
    assert (parts(list_folder(tmp_path, classes="leaf"))["train"]
            == {"cat/2021", "cat/2022", "dog/2021", "dog/2022"})


def test_albums_within_classes_within_shelves(tmp_path):
    albums = [f"{place}/{year}"
              for place in ("Animals/cat", "Animals/dog", "Machines/bus", "Machines/car")
              for year in (2021, 2022)]
    (note,) = (found := list_folder(photos(tmp_path, *albums))).notes
    assert (parts(found)["train"] == {"cat", "dog", "bus", "car"} and "read as 4 classes, called after "
            "the 2nd folders" in note)
    assert "there would be 2: classes='top'" in note and "there would be 8: classes='leaf'" in note
    assert ([len(parts(list_folder(tmp_path, classes=depth))["train"]) for depth in (1, 2, 3, 9)]
            == [2, 4, 8, 8])


@pytest.mark.parametrize("depth, error", [(0, ValueError), (-1, ValueError), (1.5, TypeError),
                                          (True, TypeError)])
def test_a_depth_that_no_folder_has_is_told(tmp_path, depth, error):
    with pytest.raises(error, match="classes=.* a whole number, at least 1"):
        list_folder(photos(tmp_path, "Fruit/Apple", "Fruit/Pear", "Milk/Whole"), classes=depth)


def test_photos_at_both_depths_belong_to_the_outer_folder(tmp_path):
    assert parts(list_folder(photos(tmp_path, "cat", "cat/more", "dog")))["train"] == {"cat", "dog"}


def test_nested_classes_within_parts(tmp_path):
    places = [f"{part}/{shelf}" for part in ("train", "val") for shelf in (
        "Fruit/Apple", "Fruit/Pear", "Milk/Oat", "Milk/Soy"
    )]
    assert parts(list_folder(photos(tmp_path, *places))) == dict.fromkeys(
        ("train", "valid"), {"Apple", "Pear", "Oat", "Soy"}
    )


# --- files


def test_other_files_are_counted_by_kind(tmp_path):
    photos(tmp_path, "cat", "dog")
    for name in ("cat/notes.txt", "cat/film.mp4", "dog/film.mp4", "dog/.hidden.png"):
        (tmp_path / name).write_bytes(b"no photo")
    (note,) = list_folder(tmp_path).notes
    assert "2 .mp4" in note and "1 .txt" in note


def test_heic_is_named_with_what_to_install(tmp_path, monkeypatch):
    photos(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "IMG_1.HEIC").write_bytes(b"no photo")
    monkeypatch.setattr("lessonkit.photos.readers.photo_suffixes", lambda: frozenset({".png"}))
    assert any("HEIC photos left out" in note and ": 1 (" in note and "pip install pillow-heif" in note
               for note in list_folder(tmp_path).notes)


@pytest.mark.parametrize("ending", [".tga", ".webp", ".jp2", ".BMP", ".tiff", ".avif"])
def test_whatever_pillow_reads_counts(tmp_path, ending):
    Image.init()
    if Image.registered_extensions().get(ending.lower()) not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {ending}")
    assert len(list_folder(photos(tmp_path, "cat", "dog", ending=ending)).rows) == 4


def test_names_as_a_browser_or_nobody_ended_them(tmp_path):
    photos(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "0.png").rename(tmp_path / "cat" / "photo")
    if os.name != "nt":
        (tmp_path / "cat" / "1.png").rename(tmp_path / "cat" / "1.png?w=300")
    (tmp_path / "cat" / "README").write_text("no photo")
    assert len(list_folder(tmp_path).rows) == 4


def test_an_accented_class_is_one_class_in_either_form(tmp_path):
    one, other = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))
    photos(tmp_path, f"train/{one}", "train/dog", f"val/{other}", "val/dog")
    found = ImageSet.from_folder(tmp_path)
    assert found.classes == [one, "dog"] and found.counts().to_numpy().tolist() == [[2, 2], [2, 2]]


# --- tables


def table(root: Path, text: str, name: str = "table.csv") -> Path:
    (root / name).write_text(text, encoding="utf-8")
    return root / name


@pytest.fixture
def root(tmp_path):
    return photos(tmp_path, "a", "b")


@pytest.mark.parametrize("text", [
    "path,label\na/0.png,cat\nb/1.png,dog\n",
    "Filename;Class\na/0.png;cat\nb/1.png;dog\n",
    "image\ttarget\na/0.png\tcat\nb/1.png\tdog\n",
    "img label\na/0.png cat\nb/1.png dog\n",
    "a/0.png,cat\nb/1.png,dog\n",
    "a/0.png cat\nb/1.png dog\n",
    "path,cat,dog\na/0.png,1,0\nb/1.png,0,1\n",
])
def test_tables_in_many_forms_say_the_same(root, text):
    assert list_table(table(root, text)).rows == [("cat", "train", "a/0.png"),
                                                  ("dog", "train", "b/1.png")]


@pytest.mark.parametrize("column, values",
                         [("split", ("train", "val")), ("Set", ("Training", "test")),
                          ("is_valid", ("False", "True"))])
def test_a_column_of_parts_is_read(root, column, values):
    found = list_table(table(root,
                             f"path,label,{column}\na/0.png,cat,{values[0]}\nb/1.png,dog,{values[1]}\n"))
    assert [part for _, part, _ in found.rows] == ["train", "valid"]


def test_a_column_that_only_sounds_like_parts_is_left_alone(root):
    assert parts(list_table(table(root, "path,label,set\na/0.png,cat,7\nb/1.png,dog,9\n"))) == {
        "train": {"cat", "dog"}
    }


def test_an_absolute_path_may_lead_into_the_root(root):
    assert list_table(table(root, f"path,label\n{root}/a/0.png,cat\nb/1.png,dog\n")).rows[0] == (
        "cat", "train", "a/0.png"
    )


@pytest.mark.parametrize("text, options, words", [
    ("path,label\n", {}, "has no rows"),
    ("path,label\na/0.png,cat\n", {"label_col": "lable"}, "no column 'lable'.*Did you mean 'label'"),
    ("where,label\na/0.png,cat\n", {}, "no column of paths.*path_col="),
    ("path,cat,dog\na/0.png,1,1\nb/1.png,0,1\n", {}, "several classes for a photo"),
    ("path,label\na/0.png,cat\na/0.png,dog\n", {}, "line 3"),
    ("path,label\n../0.png,cat\n", {}, "a path that leaves"),
    ("path,label\n/etc/0.png,cat\n", {}, "a path that leaves"),
    ("path,label\na/7.png,cat\n", {}, "a file that isn't in"),
    ("path,label\na/0.png,\n", {}, "nothing in column 'label'"),
    ("path,label,is_valid\na/0.png,cat,maybe\n", {}, "something else than true/false"),
])
def test_tables_that_cannot_be_meant(root, text, options, words):
    with pytest.raises(ValueError, match=words):
        list_table(table(root, text), **options)


def test_a_photo_has_the_same_part_in_any_folder_and_form(tmp_path):
    one = photos(tmp_path / "one", unicodedata.normalize("NFC", "Café"), "dog", n=20)
    other = photos(tmp_path / "other", unicodedata.normalize("NFD", "Café"), "dog", n=20)
    assert ImageSet.from_folder(one).split.tolist() == ImageSet.from_folder(other).split.tolist()


@pytest.mark.parametrize("separator", [",", ";", "\t", " ", "  "])
def test_a_row_that_is_cut_short_is_named(tmp_path, separator):
    """In tables that columns of blanks separate it ended in an AttributeError."""
    photos(tmp_path, "a", n=3)
    rows = [["path", "label", "more"], ["a/0.png", "cat", "x"], ["a/1.png", "owl", "y"], ["a/2.png"]]
    (tmp_path / "table.csv").write_text("\n".join(separator.join(row) for row in rows), encoding="utf-8")
    with pytest.raises(ValueError, match="nothing in column 'label'") as caught:
        ImageSet.from_csv(tmp_path / "table.csv")
    assert "\n" not in str(caught.value)
    rows[0], rows[3] = ["label", "more", "path"], ["cat"]
    (tmp_path / "table.csv").write_text("\n".join(separator.join(row) for row in rows), encoding="utf-8")
    with pytest.raises(ValueError):
        ImageSet.from_csv(tmp_path / "table.csv")

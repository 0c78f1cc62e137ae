"""How the command line reads photos: it says what it found, and takes what a folder or a table needs to be understood."""

import numpy as np
import pytest
from PIL import Image

from lessonkit.cli import main

QUICK = ["--no-frozen", "--techniques", "label_smoothing", "--seeds", "1", "--size", "16", "--epochs", "1", "--batch-size", "8",
         "--width", "4", "--jobs", "1"]  # fmt: skip


@pytest.fixture
def shelves(tmp_path):
    rng = np.random.default_rng(0)
    for place in ("Fruit/Apple", "Fruit/Pear", "Milk/Oat", "Milk/Soy"):
        (tmp_path / "shop" / place).mkdir(parents=True)
        for number in range(6):
            picture = Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8))
            picture.save(tmp_path / "shop" / place / f"{number}.png")
    return tmp_path / "shop"


def ablate(folder, out, capsys, *more):
    code = main(["ablate", str(folder), "--out", str(out), *QUICK, *more])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_it_says_which_classes_it_found_and_how_else_one_could_read_the_folder(shelves, tmp_path, capsys):
    code, said, _ = ablate(shelves, tmp_path / "out", capsys)
    assert code == 0 and "24 photos of 4 classes" in said and "Apple 6, Oat 6, Pear 6, Soy 6" in said
    assert "there would be 2: classes='top', or --classes top" in said
    code, said, _ = ablate(shelves, tmp_path / "top", capsys, "--classes", "top")
    assert code == 0 and "24 photos of 2 classes" in said and "Fruit 12, Milk 12" in said


def test_a_table_with_columns_of_other_names(shelves, tmp_path, capsys):
    rows = [f"{path.relative_to(shelves).as_posix()};{path.parent.name};{path.stem in '01'}" for path in shelves.rglob("*.png")]
    table = shelves / "photos.csv"
    table.write_text("where;what;late\n" + "\n".join(rows) + "\n")
    code, _, told = ablate(table, tmp_path / "out", capsys, "--label-col", "what")
    assert code and "no column of paths" in told and "path_col" in told
    code, said, _ = ablate(table, tmp_path / "out", capsys, "--path-col", "where", "--label-col", "what", "--valid-col", "late")
    assert code == 0 and "16 train, 8 valid" in said


def test_the_cache_is_told_and_cleared(shelves, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LESSONKIT_CACHE", str(tmp_path / "cache"))
    assert ablate(shelves, tmp_path / "out", capsys)[0] == 0
    assert main(["cache"]) == 0
    kept = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file())
    said = capsys.readouterr().out
    assert kept and f"{tmp_path / 'cache'}: {kept / 1e6:,.1f} MB" in said and "--clear" in said
    assert main(["cache", "--clear"]) == 0 and "removed" in capsys.readouterr().out
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] and len(list(shelves.rglob("*.png"))) == 24

"""The table of known faults, tests/FAULTS.md, names tests that exist; and faults that belong to no
single module."""

import ast
import re
from functools import cache
from inspect import signature
from pathlib import Path

import pytest
import torch

from lessonkit.foundation.models import small_resnet
from lessonkit.mixup import MixUpCollate, mix_targets

ROOT = Path(__file__).resolve().parent.parent
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "tests/FAULTS.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| Fault ")
]


@cache
def names_in(file: str) -> set[str]:
    """The names of a file's tests."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {part.name
            for part in tree.body if isinstance(part, ast.FunctionDef) and part.name.startswith("test_")}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:50])
def test_each_fault_has_tests_that_exist(row):
    fault, seen, tests = row
    named = re.findall(r"`([^`]+)::([^`]+)`", tests)
    assert fault and seen and named and re.sub(r"`[^`]+::[^`]+`", "", tests).strip(" |") == ""
    for file, name in named:
        assert name in names_in(file), f"{file} has no {name}"


def test_the_table_has_every_group():
    headings = re.findall(r"^## (.+)$", (ROOT / "tests/FAULTS.md").read_text(encoding="utf-8"),
                          re.MULTILINE)
    assert len(headings) == 8 and len(ROWS) > 40


def test_mixed_targets_are_of_one_type_whatever_was_drawn():
    """Targets that are class numbers in one batch and rows in the next (theseus 26)."""
    y = torch.tensor([0, 1, 1])
    kinds = {(rows.dtype, rows.shape)
             for rows in (mix_targets(y, lam, n_classes=2) for lam in (0, 0.3, 1))}
    samples = [(torch.rand(2), label) for label in (0, 1, 1)]
    kinds |= {(rows.dtype, rows.shape)
              for rows in (MixUpCollate(2, alpha)(samples)[1] for alpha in (0, 1))}
    assert kinds == {(torch.float32, torch.Size([3, 2]))}


def test_no_number_of_classes_smoothing_or_device_is_chosen_for_the_caller():
    """Hidden defaults (PaddleViT 64, timm 913): what decides a result is said, or there is none."""
    assert signature(mix_targets).parameters["n_classes"].default is None
    with pytest.raises(ValueError, match="say how many classes"):
        mix_targets(torch.tensor([0, 1]), 0.5)
    rows = mix_targets(torch.tensor([0, 1]), 1.0, n_classes=3)
    assert rows.tolist() == [[1, 0, 0], [0, 1, 0]]  # no smoothing that nobody asked for
    assert {weight.device.type for weight in small_resnet(2, width=8).parameters()} == {"cpu"}


SOURCES = [path for place in ("lessonkit", "tools", "nbs/results", "benchmarks") for path in sorted(
    (ROOT / place).glob("*.py")
)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_text_file_is_read_and_written_in_a_named_encoding(path):
    """Windows has another encoding than UTF-8 where none is named (execnb 37)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        owner = getattr(getattr(node.func, "value", None), "id", "")
        words = {word.arg for word in node.keywords}
        texts = [ast.literal_eval(part)
                 for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        if name in ("read_text", "write_text") or (name == "open" and owner in ("", "io") and not any(
            "b" in text and len(text) < 4 for text in texts
        )):
            nowhere = any(getattr(part, "attr", "") == "devnull" for part in node.args)
            assert "encoding" in words or nowhere, f"{path.name}, line {node.lineno}: name the encoding"

"""The settings of a study: what is refused, and what the command line makes of them."""

from dataclasses import fields, FrozenInstanceError, replace

import numpy as np
import pytest
from fastcore.docments import docments

from lessonkit.cli import main
from lessonkit.study.settings import Settings


@pytest.mark.parametrize("name", ["size", "epochs", "batch_size", "width"])
def test_counts_are_whole_numbers(name):
    assert getattr(Settings(**{name: np.int64(3)}), name) == 3
    for value in (2.5, "64", True, None):
        with pytest.raises(TypeError, match=f"{name}="):
            Settings(**{name: value})
    for value in (0, -1):
        with pytest.raises(ValueError, match=f"{name}="):
            Settings(**{name: value})


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 0},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"batch_size": 1},
        {"cost": "euros"},
        {"device": "nonsense"},
    ],
)
def test_what_is_out_of_range_or_unknown_is_a_value_error(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Settings(**settings)


def test_settings_are_a_value():
    assert Settings() == Settings(epochs=5) and replace(Settings(), size=32) != Settings()
    assert len({Settings(), Settings(), Settings(32)}) == 2
    with pytest.raises(FrozenInstanceError):
        Settings().size = 32


def test_the_command_has_an_option_for_each_field_with_its_default_and_its_comment(capsys):
    with pytest.raises(SystemExit):
        main(["ablate", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for field in fields(Settings):
        assert f"--{field.name.replace('_', '-')}" in shown
        told = docments(Settings)[field.name]
        assert told if field.default is False else f"{told} (default: {field.default})" in shown

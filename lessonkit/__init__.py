"""Six techniques for training image classifiers well: import the submodule that you need, e.g. `lessonkit.mixup`."""

from importlib.metadata import version

__version__ = version("lessonkit")

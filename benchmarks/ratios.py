"""The lines of the benchmark: ratios of two times, taken in turns, and accuracies, each with what was
hoped for."""

import statistics
from dataclasses import dataclass


class Line:
    """A measured value with its spread over rounds and, if there is one, its goal."""

    name: str
    sign: str = ""  # "<=" or ">=": how the value should lie to the limit
    limit: float | None = None  # None: shown without a goal
    digits: int = 2
    before: str = ""  # a word before the value

    def value(self) -> float:
        raise NotImplementedError

    def each(self) -> list[float]:
        """One value a round."""
        raise NotImplementedError

    def met(self) -> bool:
        return self.value() <= self.limit if self.sign == "<=" else self.value() >= self.limit

    def row(self) -> str:
        """A row of a Markdown table: the value, its spread over rounds, the goal."""
        numbers = self.value(), min(self.each()), max(self.each())
        value, low, high = (f"{number:.{self.digits}f}".replace("inf", "never") for number in numbers)
        goal, met = ("", "") if self.limit is None else (f"{self.sign} {self.limit:g}",
                                                         "yes" if self.met() else "NO")
        return f"| {self.name} | {self.before}{value} | {low} to {high} | {goal} | {met} |"


@dataclass(frozen=True)
class Ratio(Line):
    name: str
    above: list[float]  # seconds, one number a round
    below: list[float]
    sign: str = ""
    limit: float | None = None

    def value(self) -> float:
        return statistics.median(self.above) / statistics.median(self.below)

    def each(self) -> list[float]:
        return [above / below for above, below in zip(self.above, self.below)]


@dataclass(frozen=True)
class Accuracy(Line):
    name: str
    shares: list[float]  # how often right, one a round
    limit: float | None = None
    sign: str = ">="
    digits: int = 3

    def value(self) -> float:
        return statistics.median(self.shares)

    def each(self) -> list[float]:
        return self.shares


@dataclass(frozen=True)
class Stored(Line):
    """A line with what was measured, and no longer how; it can be kept in a file."""

    name: str
    number: float
    ends: list[float]  # smallest and largest of the rounds
    sign: str = ""
    limit: float | None = None
    digits: int = 2
    before: str = ""

    @classmethod
    def of(cls, line: Line) -> "Stored":
        ends = [min(line.each()), max(line.each())]
        return cls(line.name, line.value(), ends, line.sign, line.limit, line.digits, line.before)

    def value(self) -> float:
        return self.number

    def each(self) -> list[float]:
        return self.ends

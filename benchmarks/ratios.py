"""One line of the benchmark: two times, taken in turns, and the ratio that was hoped for."""

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    name: str
    above: list[float]  # seconds, one number a round
    below: list[float]
    sign: str = ""  # "<=" or ">=": how the ratio should lie to the limit
    limit: float | None = None  # None: shown without a goal

    def row(self) -> str:
        """A row of a Markdown table: the ratio of the medians, its spread over rounds, the goal."""
        ratio = statistics.median(self.above) / statistics.median(self.below)
        each = [above / below for above, below in zip(self.above, self.below)]
        goal = met = ""
        if self.limit is not None:
            goal = f"{self.sign} {self.limit}"
            met = "yes" if (ratio <= self.limit if self.sign == "<=" else ratio >= self.limit) else "NO"
        return f"| {self.name} | {ratio:.2f} | {min(each):.2f} to {max(each):.2f} | {goal} | {met} |"

"""Figures and the table they end up in: a figure is a number, a peer's number beside it, and the ratio of the two."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True)
class Goal:
    """What a figure is to reach: a limit on its value, or on its ratio to the peer."""

    #: "value" or "ratio".
    of: str
    #: ">=", "<=" or "<".
    relation: str
    limit: float

    def met(self, value: float, ratio: float | None) -> bool:
        """True if it is reached."""
        number = value if self.of == "value" else ratio
        if number is None:
            return False
        return {">=": number >= self.limit, "<=": number <= self.limit, "<": number < self.limit}[self.relation]

    def __str__(self) -> str:
        sign = {">=": "≥", "<=": "≤", "<": "<"}[self.relation]
        return f"{sign} {shown(self.limit)}{' ×' if self.of == 'ratio' else ''}"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the table."""

    what: str
    value: float
    unit: str
    #: What stands beside it, and its number in the same unit.
    peer: str = ""
    peer_value: float | None = None
    goals: Sequence[Goal] = ()

    @property
    def ratio(self) -> float | None:
        """The value divided by the peer's."""
        return self.value / self.peer_value if self.peer_value else None

    @property
    def met(self) -> bool:
        """True if every goal is reached."""
        return all(goal.met(self.value, self.ratio) for goal in self.goals)


@dataclass(frozen=True, kw_only=True)
class Section:
    """What one measurement found."""

    title: str
    #: How it was measured, for those who want to repeat it.
    method: str
    figures: Sequence[Figure] = ()
    #: What else was seen: CPU use, failures, why there is nothing.
    notes: Sequence[str] = field(default_factory=list)

    def markdown(self) -> str:
        """The section as it stands in the results."""
        lines = [f"## {self.title}", "", self.method.strip(), ""]
        if self.figures:
            lines += ["| what | measured | beside it | it measured | ratio | goal | met |",
                      "| --- | ---: | --- | ---: | ---: | --- | --- |"]
            lines += [_row(figure) for figure in self.figures]
            lines.append("")
        lines += [f"- {note}" for note in self.notes]
        return "\n".join(lines).rstrip() + "\n"


def _row(figure: Figure) -> str:
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    peer = "" if figure.peer_value is None else f"{shown(figure.peer_value)} {figure.unit}"
    goals = ", ".join(str(goal) for goal in figure.goals)
    met = "" if not figure.goals else "yes" if figure.met else "no"
    ours = f"{shown(figure.value)} {figure.unit}"
    return f"| {figure.what} | {ours} | {figure.peer} | {peer} | {ratio} | {goals} | {met} |"


def shown(number: float) -> str:
    """A number with as many digits as mean something."""
    if number >= 100 or number == int(number):
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def alternate(rounds: int, sides: Mapping[str, Callable[[], Result]]) -> dict[str, list[Result]]:
    """Measure every side once in each round, so that a disturbance meets all of them alike."""
    found: dict[str, list[Result]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            found[name].append(measure())
    return found


def percentile(sorted_values: Sequence[float], share: float) -> float:
    """The value below which `share` of the sorted values lie."""
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))]


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)

"""What the engine would have said of some units, for tests of the panels that show them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import msgspec
from textual.app import App, ComposeResult

from probe_engine.events import (
    AnyEvent,
    Contributions,
    EstimateEvent,
    HistogramEvent,
    Part,
    StageStarted,
    Units,
)
from probe_engine.report import (
    Estimates,
    Histogram,
    Histograms,
    Influence,
    MethodInfo,
    Number,
    ResponseRow,
    UnitRow,
    UStatistic,
)
from probe_tui.renderables.palette import DEFAULT, Palette
from probe_tui.state import ScreenState, fold
from probe_tui.widgets.panel import Panel

BINS = 8


class Host(App[None]):
    """A screen with one panel, shown one state."""

    palette: Palette = DEFAULT

    def __init__(self, panel: Panel, state: ScreenState) -> None:
        super().__init__()
        self.panel = panel
        self.state = state
        self.copied = ""
        self.path = ""

    def compose(self) -> ComposeResult:
        yield self.panel

    def on_mount(self) -> None:
        self.panel.show(self.state)

    def action_copy(self) -> None:
        self.copied = self.panel.copy_text()

    def action_command(self) -> None:
        self.path = self.panel.json_path()


def unit(number: int, *, s: float | None = None, r: float | None = None, prompt: str = "") -> UnitRow:
    """A unit with two responses; its id is `u` and the number."""
    responses = [
        ResponseRow(
            text=f"{word} {number}",
            length=length,
            terminated=length < 9,
            reward=reward,
            advantage=c * 2,
            S=-1.5 * length,
            c=c,
        )
        for word, length, reward, c in (("right", 4, 1.0, 0.25), ("wrong", 9, 0.0, -0.25))
    ]
    return UnitRow(
        id=f"u{number}",
        prompt=prompt or f"Sort the digits of {number * 7919 % 9973}",
        role="U" if number % 2 else "E",
        G=2,
        tokens=13,
        reward_mean=0.5,
        reward_std=0.5,
        S=[-6.0, -13.5],
        advantages=[0.5, -0.5],
        x_norm=1.0 + number,
        y_norm=2.0,
        py_norm=3.0,
        x_dot_py=0.5,
        contribution_s=s,
        contribution_r=r,
        responses=responses,
    )


def units(count: int) -> list[UnitRow]:
    """Units of which the entropy falls with most, more with the later ones; none has exactly 0."""
    draw = random.Random(count)
    changes = [1e-5 * (draw.gauss(-1, 1) - 0.02 * n) for n in range(count)]
    return [unit(n, s=change * 1.5 if n % 2 == 0 else None, r=change) for n, change in enumerate(changes)]


def counted(values: Iterable[float | None], *, bins: int = BINS, nan: int = 0) -> Histogram:
    """Bins of equal width, half of them on either side of 0."""
    known = [v for v in values if v is not None]
    reach = max((abs(v) for v in known), default=1.0)
    edges = [reach * (2 * i / bins - 1) for i in range(bins + 1)]
    counts = [0] * bins
    for v in known:
        counts[min(int((v / reach + 1) * bins / 2), bins - 1)] += 1
    return Histogram(edges=edges, counts=counts, nan=nan, underflow=0, overflow=0)


def without_contributions(rows: Sequence[UnitRow]) -> list[UnitRow]:
    """As they are while the engine measures."""
    return [msgspec.structs.replace(u, contribution_s=None, contribution_r=None) for u in rows]


def so_far(rows: Sequence[UnitRow], *, bins: int = BINS) -> list[AnyEvent]:
    """What a micro-batch says of all units measured so far."""
    return [
        Units(rows=without_contributions(rows)),
        Contributions(
            ids=[u.id for u in rows],
            s=[u.contribution_s for u in rows],
            r=[u.contribution_r for u in rows],
        ),
        HistogramEvent(histograms=histograms(rows, bins=bins)),
    ]


def finally_(rows: Sequence[UnitRow], *, bins: int = BINS) -> list[AnyEvent]:
    """What the stage estimate says."""
    estimate = UStatistic(
        u_cross=0.1,
        delta_h1=-1e-5,
        se_plugin=1e-6,
        se_jackknife=1e-6,
        ci95=(-1.2e-5, -0.8e-5),
        zeta1=0.1,
        zeta2=0.1,
        B=len(rows),
        prompts_needed=None,
    )
    return [
        Units(rows=list(rows)),
        EstimateEvent(estimates=Estimates(u_statistic=estimate)),
        HistogramEvent(histograms=histograms(rows, bins=bins)),
    ]


def histograms(rows: Sequence[UnitRow], *, bins: int = BINS) -> Histograms:
    """Of both contributions."""
    return Histograms(
        s=counted((u.contribution_s for u in rows), bins=bins),
        r=counted((u.contribution_r for u in rows), bins=bins),
    )


def method(*, kept: bool, name: str = "loop") -> Part:
    """How the units are measured."""
    return Part(
        method=MethodInfo(
            name=name,
            x_estimator="score",
            passes=1 if kept else 2,
            vectors_kept=kept,
            fallback_parameters=0,
            attention="math",
        )
    )


def influence(rows: Sequence[UnitRow]) -> Part:
    """A K of which the diagonal is the largest, and every row's mean another one."""
    draw, n = random.Random(7), len(rows)
    K: list[list[Number]] = [
        [(-9e-5 if u == v else 1e-5 * draw.gauss(0, 1)) - 1e-6 * (u * 5 % n) for v in range(n)]
        for u in range(n)
    ]
    return Part(influence=Influence(ids=[u.id for u in rows], K=K))


def state_of(*events: AnyEvent, after: ScreenState | None = None) -> ScreenState:
    """The screen's state after these events of the stage measure."""
    state = fold(ScreenState(), StageStarted(stage="measure")) if after is None else after
    for event in events:
        state = fold(state, event)
    return state

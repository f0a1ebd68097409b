"""The forecast as text: before the measurement, and beside what then happened."""

from __future__ import annotations

from probe_engine.report import Cost, Forecast
from probe_tui.renderables.numbers import count, duration, number, size


def forecast_line(made: Forecast) -> str:
    """Of the method with which the run goes on."""
    return f"  forecast  {made.method}: {_words(made, made.method)}"


def forecast_table(made: Forecast) -> list[str]:
    """Of every method."""
    width = max(map(len, made.predicted))
    rows = [
        f"  {'→' if name == made.method else ' '} {name:<{width}}  {_words(made, name)}"
        for name in made.predicted
    ]
    return ["forecast, from the measurement to the verdict; → goes on", *rows]


def outcome_line(made: Forecast) -> str:
    """What happened, as multiples of what was foreseen."""
    seconds = _against(made.measured.expected_seconds[made.method], made.measured.seconds)
    memory = _against(made.predicted[made.method].memory, made.measured.memory)
    told = [] if made.measured.seconds is None else [f"{duration(made.measured.seconds)} ({seconds})"]
    if made.measured.memory is not None:
        told.append(f"{size(made.measured.memory)} ({memory})")
    return f"  it took {', '.join(told)}"


def _words(made: Forecast, name: str) -> str:
    cost: Cost = made.predicted[name]
    seconds = made.measured.expected_seconds[name]
    time = "time unknown" if seconds is None else f"about {duration(seconds)}"
    flops = "—" if cost.flops is None else count(round(cost.flops))
    passes = f"{cost.passes} pass{'es' if cost.passes > 1 else ''}"
    memory = f"{size(cost.memory)} beside the model"
    if cost.parameter_lengths is not None:
        memory += f" ({cost.parameter_lengths} parameter-lengths)"
    return f"{time}, {memory}, {passes}, {cost.tokens:,} tokens, {flops} operations"


def _against(foreseen: float | None, seen: float | None) -> str:
    if not foreseen or seen is None:
        return "not foreseen"
    return f"{number(seen / foreseen)} of the forecast"

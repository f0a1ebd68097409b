"""What `--method fused` costs beside one training step on the same sequences.

The step is forward and backward of the policy-gradient loss in the same micro-batches, without the
optimizer's update. `measure` is X of (2), Y, s, r and t of all units: the probe's stage of that name, after
its check of gradient flow, which has tried whether the model takes several sequences in a row. `whole` is the
probe of a live model, from its adoption to the verdict: by default with both forms of X, both steps and the
sweep, with `--lean` with X of (2) alone and one step in both pairings. What it is made of stands beside it as
`probe_STAGE`, and `probe_rest` is what no stage counts. `verdict` is from the measurement, the forecast with
it, to the verdict: the gradient-flow check costs the same on any batch.
Times are medians of rounds in alternation; memory is the peak above the loaded model, of a process of its
own (_peak.py). The errors of the forecast are of the same runs: |expected/measured − 1|.

python benchmarks/fused_vs_step.py [--model smollm2|tiny] [--full] [--lean] [--sequences 16] [--tokens 96]
    [--json]
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

from _case import Case, stage_seconds
from _figures import Limit, show
from _flops import flops
from _peak import peak
from _setting import Setting, parser
from _timing import alternated, clocked

from probe_engine.report import Forecast
from probe_engine.stages.forecast import FORESEEN


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one table, or its figures as JSON."""
    options = parser(__doc__, rounds=5, probed=True).parse_args(arguments)
    setting = Setting.of(options)
    case = Case.of(setting)
    forecasts: list[Forecast] = []

    def probed() -> dict[str, float]:
        begun = time.perf_counter()
        report = case.probe()
        whole = time.perf_counter() - begun
        assert report.forecast is not None
        forecasts.append(report.forecast)
        stages = stage_seconds(report)
        rest = whole - sum(report.timings.values())
        return {"whole": whole} | {f"probe_{stage}": s for stage, s in (stages | {"rest": rest}).items()}

    seconds = alternated(options.rounds, clocked("step", case.step), clocked("measure", case.measure), probed)
    stages = {name: value for name, value in seconds.items() if name.startswith("probe_")}
    step, whole = peak("step", setting), peak("probe", setting)
    figures = {
        **setting.described(),
        "rounds": options.rounds,
        **{f"{name}_seconds": value for name, value in seconds.items()},
        "measure_over_step": seconds["measure"] / seconds["step"],
        **{f"{name}_over_step": value / seconds["step"] for name, value in stages.items()},
        "whole_over_step": seconds["whole"] / seconds["step"],
        "verdict_over_step": sum(stages[f"probe_{stage}"] for stage in FORESEEN) / seconds["step"],
        "first_pass_flops_over_step": flops(case.first_pass) / flops(case.step),
        "step_gib": step / 2**30,
        "whole_gib": whole / 2**30,
        "memory_over_step": whole / step,
        "forecast_time_error": median(abs(time_foreseen(f) - 1) for f in forecasts),
        "forecast_memory_error": median(abs(memory_foreseen(f) - 1) for f in forecasts),
    }
    show(figures, limits(setting), as_json=options.json)


def limits(setting: Setting) -> dict[str, Limit]:
    """Beside the step on SmolLM2: the tiny model's has little to do beside what each pass costs once."""
    foreseen = {"forecast_time_error": Limit("≤", 0.35), "forecast_memory_error": Limit("≤", 0.25)}
    if setting.model != "smollm2":
        return foreseen
    if setting.full:
        return {"measure_over_step": Limit("≤", 3), **foreseen}
    lean = {"whole_over_step": Limit("≤", 2), "memory_over_step": Limit("≤", 1.15)} if setting.lean else {}
    return {"measure_over_step": Limit("≤", 1.15), **lean, **foreseen}


def time_foreseen(forecast: Forecast) -> float:
    """Expected over measured seconds, from the measurement to the verdict."""
    return forecast.measured.expected_seconds[forecast.method] / forecast.measured.seconds


def memory_foreseen(forecast: Forecast) -> float:
    """Expected over measured bytes, kept unit gradients included."""
    return forecast.predicted[forecast.method].memory / forecast.measured.memory


if __name__ == "__main__":
    main()

"""RunSpec: every option of a run, resolved and validated, with the origin of each value.

A flag beats the environment (`PROBE_…`), which beats the file (`probe.toml`, else
`[tool.probe-tui]` in `pyproject.toml`), which beats the default.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin, get_type_hints

import msgspec

from probe_engine.errors import UsageError

Weighting = Literal["dr_grpo", "sequence", "per_token"]
LossType = Literal["dr_grpo", "grpo", "dapo", "bnpo"]
ScaleRewards = Literal["group", "batch", "none"]
StepKind = Literal["preconditioned", "adamw"]
Method = Literal["fused", "loop", "alpha", "alpha-vjp"]
XForm = Literal["score", "rao_blackwell"]
XEstimator = Literal["score", "rao_blackwell", "both"]
Positive = Annotated[int, msgspec.Meta(ge=1)]
NonNegativeFloat = Annotated[float, msgspec.Meta(ge=0)]
Origin = Literal["flag", "environment", "file", "default", "call", "screen"]


def _help(text: str, **constraints: Any) -> msgspec.Meta:
    return msgspec.Meta(description=text, **constraints)


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every option of a run. The descriptions are the command line's help."""

    checkpoint: Annotated[str | None, _help("checkpoint folder or file")] = None
    rollouts: Annotated[
        str | None, _help("rollouts, a file or folder; default: found beside the checkpoint")
    ] = None
    prompts: Annotated[str | None, _help("prompts (JSON Lines) to sample rollouts from, here")] = None
    reward: Annotated[str | None, _help("reward function for --prompts, PKG.MOD:FUNC")] = None
    num_generations: Annotated[int, _help("responses sampled for each of --prompts", ge=2)] = 8
    base: Annotated[str | None, _help("an adapter's base model, a folder")] = None
    weighting: Annotated[Weighting, _help("length weight of the probed entropy")] = "dr_grpo"
    x_estimator: Annotated[
        XEstimator,
        _help("form of the entropy gradient that predicts; both: the one with the smaller standard error"),
    ] = "both"
    loss_type: Annotated[
        LossType | None, _help("the trainer's loss type; default: its own, else dr_grpo")
    ] = None
    scale_rewards: Annotated[
        ScaleRewards | None,
        _help("how rewards become advantages where none are logged; default: the trainer's, else group"),
    ] = None
    max_completion_length: Annotated[
        Positive | None, _help("L_max; default: the trainer's, else the longest response")
    ] = None
    policy_temperature: Annotated[
        float, _help("temperature by which the trainer's loss divides logits", gt=0)
    ] = 1.0
    units: Annotated[
        Literal["prompt", "block"], _help("what one unit is: a prompt or a block of prompts")
    ] = "prompt"
    block_size: Annotated[int, _help("prompts in a block, with --units block", ge=1)] = 2
    split: Annotated[float, _help("share of the units that evaluate (E)", gt=0, lt=1)] = 0.5
    method: Annotated[Method, _help("how the dot products are computed")] = "fused"
    steps: Annotated[
        tuple[StepKind, ...],
        _help("steps that are taken and measured, with commas between: preconditioned, adamw", min_length=1),
    ] = ("preconditioned", "adamw")
    no_sweep: Annotated[
        bool, _help("leave out the sweep over other lengths of the step: three scorings of E less")
    ] = False
    resample: Annotated[
        bool, _help("sample fresh responses after a step whose weights degenerate, and measure with those")
    ] = False
    lr: Annotated[NonNegativeFloat | None, _help("learning rate; default: the optimizer's")] = None
    max_prompts: Annotated[Positive | None, _help("use the first N prompts only")] = None
    micro_batch: Annotated[int, _help("sequences in one forward pass", ge=1)] = 8
    memory_budget: Annotated[str, _help("memory for kept unit gradients, such as 4GiB or 500MiB")] = "4GiB"
    checkpointing: Annotated[
        bool, _help("gradient checkpointing: long sequences in less memory, for one more forward pass")
    ] = False
    device: Annotated[str, _help("auto, cpu, cuda, cuda:1, …")] = "auto"
    dtype: Annotated[Literal["float32", "bfloat16", "float16", "float64"], _help("the model's dtype")] = (
        "float32"
    )
    seed: Annotated[int, _help("seed of the split and of sampling", ge=0)] = 0
    out: Annotated[str | None, _help("run folder to write")] = None
    fail_on: Annotated[Literal["fail", "warn", "never"], _help("exit 1 at a finding of this status")] = "fail"
    select: Annotated[tuple[str, ...], _help("codes (or prefixes) that may count for --fail-on")] = ()
    ignore: Annotated[tuple[str, ...], _help("codes (or prefixes) that never count for --fail-on")] = ()
    trust: Annotated[bool, _help("allow unpickling of files that torch refuses")] = False

    def chosen(self, code: str) -> bool:
        """Whether a finding with this code may count: selected, and not ignored."""
        return (not self.select or code.startswith(self.select)) and not (
            self.ignore and code.startswith(self.ignore)
        )

    def counts(self, code: str, status: str) -> bool:
        """Whether a finding with this root cause and status makes the run fail."""
        counted = {"fail": ("fail", "crash"), "warn": ("warn", "fail", "crash"), "never": ()}[self.fail_on]
        return status in counted and self.chosen(code)

    @property
    def rao_blackwell(self) -> bool:
        """Whether X of (2b) is computed, which needs one length weight for all responses."""
        return self.x_estimator != "score" and self.weighting != "per_token"

    @property
    def memory_budget_bytes(self) -> int:
        """`memory_budget` in bytes."""
        match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([KMGT]i?B|B)?\s*", self.memory_budget, re.I)
        if match is None:
            raise UsageError(
                f"--memory-budget: expected a size such as 4GiB or 500MiB, got {self.memory_budget!r}"
            )
        unit = (match[2] or "B").lower()
        base = 1024 if "i" in unit else 1000
        return int(float(match[1]) * base ** "bkmgt".index(unit[0]))


LISTS = frozenset(field.name for field in msgspec.structs.fields(RunSpec) if isinstance(field.default, tuple))
"""Options of several values, which a command line writes with commas between."""


class Setting(msgspec.Struct, frozen=True):
    """One resolved option: its value and where it came from."""

    value: Any
    origin: str


class Resolved(msgspec.Struct, frozen=True):
    """A RunSpec and the origin of every value in it."""

    spec: RunSpec
    origins: dict[str, str]

    def config(self) -> dict[str, Setting]:
        """The report's `config`: option to value and origin."""
        return {
            name: Setting(getattr(self.spec, name), self.origins.get(name, "default"))
            for name in self.spec.__struct_fields__
        }


def resolve(
    flags: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    *,
    flag_origin: Origin = "flag",
) -> Resolved:
    """Resolves options: flag, environment, file, default.

    Args:
        flags: option to value; None and empty tuples count as not given.
        environ: environment variables; `PROBE_MICRO_BATCH=4` sets `micro_batch`.
        folder: where `probe.toml` and `pyproject.toml` are looked for.
        flag_origin: what to call the origin of `flags` ("call" from Python).

    Raises:
        UsageError: an unknown option or a value of the wrong type, naming both.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in (
        ("file", _file_layer(folder)),
        ("environment", _environment_layer(environ or {})),
        (flag_origin, {k: _plain(v) for k, v in flags.items() if v is not None and v != ()}),
    ):
        unknown = sorted(set(layer) - set(RunSpec.__struct_fields__))
        if unknown:
            raise UsageError(
                f"unknown option {unknown[0]!r} from the {origin}",
                "probe-tui --help lists the options",
            )
        values |= layer
        origins |= dict.fromkeys(layer, origin)
    try:
        # Environment variables are strings; strict=False reads "4" as the number 4.
        spec = msgspec.convert(values, RunSpec, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"option {_where(str(error), origins)}") from error
    _ = spec.memory_budget_bytes
    if spec.x_estimator == "rao_blackwell" and spec.weighting == "per_token":
        raise UsageError(
            "--x-estimator rao_blackwell needs one length weight for all responses, --weighting per_token "
            "has one for each length",
            "Take --x-estimator score, or --weighting sequence.",
        )
    if (spec.prompts is None) != (spec.reward is None):
        raise UsageError("--prompts and --reward go together: give both or neither")
    if spec.prompts is not None and spec.rollouts is not None:
        raise UsageError("--rollouts reads rollouts, --prompts samples them: give one of the two")
    return Resolved(spec, origins)


def _choices(name: str) -> tuple[str, ...]:
    """The words that an option takes, empty where it takes something else."""
    kind = get_type_hints(RunSpec).get(name)
    alternatives = (kind, *get_args(kind))
    return next((get_args(a) for a in alternatives if get_origin(a) is Literal), ())


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _where(error: str, origins: Mapping[str, str]) -> str:
    match = re.search(r"`\$\.(\w+)", error)
    name = match[1] if match else ""
    text = re.sub(r" - at `.*`", "", error)
    choices = _choices(name)
    if choices and "enum" in text:
        text = f"{text}: expected one of {', '.join(choices)}"
    return f"--{name.replace('_', '-')} (from the {origins.get(name, 'call')}): {text}"


def _environment_layer(environ: Mapping[str, str]) -> dict[str, Any]:
    layer: dict[str, Any] = {}
    for name in RunSpec.__struct_fields__:
        text = environ.get(f"PROBE_{name.upper()}")
        if text is not None:
            layer[name] = tuple(text.split(",")) if name in LISTS else text
    return layer


def _file_layer(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {}
    for path, keys in (
        (folder / "probe.toml", ()),
        (folder / "pyproject.toml", ("tool", "probe-tui")),
    ):
        if not path.is_file():
            continue
        try:
            table: Any = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"{path}: not valid TOML: {error}") from error
        for key in keys:
            table = table.get(key, {}) if isinstance(table, dict) else table
        if not isinstance(table, dict):
            raise UsageError(f"{path}: expected a table of options, found {table!r}")
        if table:
            return {k.replace("-", "_"): v for k, v in cast(dict[str, Any], table).items()}
    return {}

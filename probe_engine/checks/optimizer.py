"""OPT: findings on the optimizer's state, from a file or live."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch import nn

from probe_engine.errors import ProbeError
from probe_engine.registry import ParameterRegistry
from probe_engine.report import Finding, OptimizerInfo, finding
from probe_engine.sources.checkpoints.adam_state import AdamReading
from probe_engine.sources.checkpoints.names import listed, shown
from probe_engine.types import OptimizerState, Scalar

MODELLED_LOSSES = ("dr_grpo", "grpo", "dapo", "bnpo")


def optimizer_findings(
    reading: AdamReading, registry: ParameterRegistry, step: int | None = None
) -> list[Finding]:
    """OPT001 to OPT007, and OPT009 of a live reading; what waits for a refused state is skipped.

    Args:
        reading: of a file or a live optimizer.
        registry: the trainable parameters.
        step: optimizer steps done, as the checkpoint says; None where nothing says it.
    """
    state = reading.state
    refusal = reading.refusal
    if refusal is not None:
        refused = refused_state(refusal)
        waiting = [
            finding(code, "skip", f"waits for {refusal.code}")
            for code in ("OPT001", "OPT002", "OPT003", "OPT004", "OPT005", "OPT006")
            if code > refusal.code or refusal.code == "OPT009"
        ]
        return [refused, *waiting, learning_rate(state)]
    noticed = [*reading.invalid, *reading.stepless]
    same_objects = [parameter_objects(state, reading.strays)] if state.mapped_by == "object" else []
    return [
        *same_objects,
        finding("OPT001", "ok", f"Adam states of {len(state.moments) + len(noticed)} parameters"),
        finding("OPT002", "ok", state.class_name or "Adam's family"),
        finding("OPT003", "ok", f"every state has its parameter's shape, mapped by {state.mapped_by}"),
        parameters_with_state(registry, state, explained=noticed),
        valid_moments(reading.invalid),
        steps(state, reading.stepless, step),
        learning_rate(state),
    ]


def parameter_objects(state: OptimizerState, strays: Sequence[str]) -> Finding:
    """OPT009: does a live optimizer step the model's own parameters?

    Args:
        state: the optimizer's.
        strays: shapes of trainable parameters that it holds and the registry does not.
    """
    if not strays:
        return finding("OPT009", "ok", "every trainable parameter of the optimizer is the model's")
    return finding(
        "OPT009",
        "warn",
        f"expected the model's own parameters in {state.class_name or 'the optimizer'}, found {len(strays)} "
        f"objects that are not (shapes {shown(strays)}): it steps them, and the model does not move there",
        value=len(strays),
        threshold=0,
        evidence={"shapes": listed(strays)},
    )


def parameters_with_state(
    registry: ParameterRegistry,
    state: OptimizerState,
    *,
    explained: Collection[str] = (),
) -> Finding:
    """OPT004: how many parameters fall back to P = 1?

    Args:
        registry: the trainable parameters.
        state: the optimizer's.
        explained: parameters whose fallback another finding has reported; they don't make this one fire.
    """
    missing = [name for name in registry.names if name not in state.moments]
    new = [name for name in missing if name not in explained]
    line = f"{len(missing)} of {len(registry)} parameters fall back to P = 1"
    if not new:
        return finding("OPT004", "info" if missing else "ok", line, value=len(missing), threshold=0)
    on_disk = state.mapped_by != "object"
    return finding(
        "OPT004",
        "warn",
        f"expected a state for every trainable parameter, found none for {len(new)} ({shown(new)}): "
        f"{line}, so the prediction all but leaves them out",
        value=len(missing),
        threshold=0,
        evidence={"parameters": listed(new)},
        remedy="Take the optimizer.pt that was saved with these weights, or another checkpoint; a parameter "
        "that joined the training gets its state with its first step."
        if on_disk
        else None,
    )


def valid_moments(invalid: Sequence[str]) -> Finding:
    """OPT005: v is a running mean of squares."""
    if not invalid:
        return finding("OPT005", "ok", "exp_avg_sq is finite and not negative")
    return finding(
        "OPT005",
        "fail",
        f"expected finite moments and exp_avg_sq ≥ 0, found otherwise in {len(invalid)} parameters "
        f"({shown(invalid)}): √v̂ is no number there, so they fall back to P = 1",
        value=len(invalid),
        threshold=0,
        evidence={"parameters": listed(invalid)},
    )


def steps(state: OptimizerState, stepless: Sequence[str], done: int | None = None) -> Finding:
    """OPT006: has every parameter the same step, of 1 or more, and the checkpoint's?"""
    if stepless:
        return finding(
            "OPT006",
            "warn",
            f"expected a step of 1 or more, found 0 or none for {len(stepless)} parameters "
            f"({shown(stepless)}): v̂ = v/(1 − β₂^step) does not exist there, so they fall back to P = 1",
            value=len(stepless),
            threshold=0,
            evidence={"parameters": listed(stepless)},
        )
    found = sorted({moments.step for moments in state.moments.values()})
    if len(found) > 1:
        behind = [name for name, moments in state.moments.items() if moments.step < found[-1]]
        return finding(
            "OPT006",
            "warn",
            f"expected one step for all parameters, found {found[0]:g} to {found[-1]:g} ({shown(behind)} are "
            "behind): they joined later or skipped updates; each v̂ uses its own step",
            value=found[0],
            threshold=found[-1],
            evidence={"parameters": listed(behind)},
        )
    if found and done is not None and found[0] != done:
        return finding(
            "OPT006",
            "warn",
            f"expected the state of step {done}, the checkpoint's, found that of step {found[0]:g}: it is of "
            "other weights, or the optimizer was started anew or skipped steps",
            value=found[0],
            threshold=done,
            remedy="Take the optimizer.pt that was saved with these weights.",
        )
    return finding("OPT006", "ok", f"step {found[0]:g}" if found else "no state", value=state.step)


def learning_rate(state: OptimizerState) -> Finding:
    """OPT007: is η known, and not 0?"""
    if state.lr is None:
        return finding("OPT007", "skip", "no learning rate is known")
    if state.lr > 0:
        return finding("OPT007", "ok", f"η = {state.lr:g} from {state.lr_origin}", value=state.lr)
    return finding(
        "OPT007",
        "warn",
        f"expected a learning rate above 0, found 0 in {state.lr_origin}: the next step is no step, and "
        "every entropy change is 0",
        value=0.0,
        threshold=0.0,
    )


def modelled_step(
    model: nn.Module,
    trainer: Mapping[str, Scalar],
    rates: Sequence[float] = (),
    policy_temperature: float = 1.0,
) -> Finding:
    """OPT011: does the trainer's step hold more than the gradient of Σ A·κ·S?

    Args:
        model: its dropout is looked at.
        trainer: the trainer's arguments, empty where unknown.
        rates: learning rates of the optimizer's groups.
        policy_temperature: `--policy-temperature`, by which the probe divides logits.
    """
    terms: dict[str, Any] = {
        name: trainer[name] for name, differs in _TERMS.items() if name in trainer and differs(trainer[name])
    }
    if trainer.get("use_vllm") and trainer.get("vllm_importance_sampling_correction", True):
        terms["vllm_importance_sampling_correction"] = True
    generations, accumulated = trainer.get("steps_per_generation"), trainer.get("gradient_accumulation_steps")
    if isinstance(generations, int) and isinstance(accumulated, int) and generations > accumulated:
        terms["steps_per_generation"] = generations
    temperature = trainer.get("temperature")
    if isinstance(temperature, int | float) and temperature != policy_temperature:
        terms["temperature"] = temperature
    dropout = _dropout(model, disabled=trainer.get("disable_dropout") is True)
    if dropout > 0:
        terms["dropout"] = dropout
    if len(rates) > 1:
        terms["learning rates by group"] = list(rates)
    if not terms:
        if trainer:
            return finding("OPT011", "ok", "the trainer's loss is Σ A·κ·S")
        return finding(
            "OPT011",
            "info",
            "the trainer's arguments are unknown: its loss is taken to be Σ A·κ·S",
            remedy="",
        )
    listed = ", ".join(f"{name} = {value}" for name, value in terms.items())
    kappa = "; κ falls back to dr_grpo's" if "loss_type" in terms else ""
    return finding(
        "OPT011",
        "warn",
        f"expected a step on Σ A·κ·S alone, found {listed}{kappa}: the true step differs by these parts, and "
        "δH₁ is that of the policy gradient",
        evidence=terms,
    )


def own_step_known(
    state: OptimizerState, registry: ParameterRegistry, max_grad_norm: float | None, norm: float
) -> Finding:
    """OPT012: is the step that the optimizer would take next known whole, clipping included?

    Args:
        state: the optimizer's.
        registry: the trainable parameters.
        max_grad_norm: the trainer's, 0 for no clipping; None where its arguments do not tell.
        norm: ‖Ȳ‖ of the batch, which it clips.
    """
    lacking = [name for name in registry.names if name not in state.rules]
    if lacking:
        why = (
            f"{len(lacking)} of {len(registry)} parameters have no usable state or group ({shown(lacking)})"
            if state.rules
            else "no learning rate is known that torch can step with"
            if state.moments
            else "there is no optimizer state"
        )
        left = "only the preconditioned step is predicted and taken"
        return finding("OPT012", "skip", f"what the optimizer would do next is not known, {why}: {left}")
    kind = state.class_name or "the optimizer"
    if max_grad_norm is None:
        return finding(
            "OPT012",
            "info",
            f"{kind}'s next step is known but for clipping: expected the trainer's max_grad_norm, found "
            f"none. ‖Ȳ‖ = {norm:.3g} is taken as it is",
            value=norm,
        )
    if max_grad_norm == 0 or norm <= max_grad_norm:
        limit = "no max_grad_norm" if max_grad_norm == 0 else f"max_grad_norm = {max_grad_norm:g}"
        said = f"‖Ȳ‖ = {norm:.3g} with {limit}: not clipped"
    else:
        said = f"‖Ȳ‖ = {norm:.3g} is clipped to max_grad_norm = {max_grad_norm:g}"
    return finding("OPT012", "ok", f"{kind}'s next step: {said}", value=norm, threshold=max_grad_norm)


def optimizer_info(registry: ParameterRegistry, state: OptimizerState) -> OptimizerInfo:
    """The report's words on the optimizer.

    Args:
        registry: the trainable parameters.
        state: the optimizer's.
    """
    matched = sum(name in state.moments for name in registry.names)
    return OptimizerInfo(
        class_=state.class_name,
        lr=state.lr,
        lr_origin=state.lr_origin,
        betas=state.betas,
        eps=state.eps,
        weight_decay=state.weight_decay,
        step=state.step,
        matched=matched,
        missing=len(registry) - matched,
        fallbacks=len(registry) - matched,
        mapped_by=state.mapped_by,
    )


def _positive(value: Scalar) -> bool:
    return isinstance(value, int | float) and value > 0


_TERMS: Mapping[str, Callable[[Scalar], bool]] = {
    # trl's GRPOConfig; each with the values under which its loss is more, or other, than Σ A·κ·S.
    "beta": lambda value: isinstance(value, int | float) and value != 0,
    "entropy_coef": lambda value: isinstance(value, int | float) and value != 0,
    "use_adaptive_entropy": lambda value: value is True,
    "num_iterations": lambda value: isinstance(value, int | float) and value > 1,
    "importance_sampling_level": lambda value: value != "token",
    "loss_type": lambda value: value not in MODELLED_LOSSES,
    "mask_truncated_completions": lambda value: value is True,
    "top_entropy_quantile": lambda value: isinstance(value, int | float) and value < 1,
    "off_policy_mask_threshold": lambda value: value is not None,
    "router_aux_loss_coef": _positive,
}


def _dropout(model: nn.Module, *, disabled: bool) -> float:
    """The largest dropout probability that is active while the trainer trains."""
    # disable_dropout reaches modules; attention_dropout is an argument of the attention function.
    functional = getattr(getattr(model, "config", None), "attention_dropout", 0.0)
    rates = [float(functional)] if isinstance(functional, int | float) else []
    if not disabled:
        rates += [m.p for m in model.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
    return max(rates, default=0.0)


def refused_state(refusal: ProbeError) -> Finding:
    """OPT001 to OPT003, OPT009, CKPT002 or CKPT007: why there is no state at all."""
    return finding(
        refusal.code,
        "warn" if refusal.code == "OPT001" else "fail",
        refusal.message,
        evidence=refusal.evidence,
        remedy=refusal.remedy or None,
        commands=refusal.commands or None,
    )

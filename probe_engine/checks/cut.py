"""GRAD012, GRAD013, GRAD015: where the forward itself cuts the graph, or is not the same twice."""

from __future__ import annotations

from torch import Tensor

from probe_engine.model.cut_graph import Cut, Walk
from probe_engine.model.noise import Noise
from probe_engine.report import Finding, finding

SAME = 1e-4
"""Relative to the largest |S|: what kernels that add in another order may do to float32."""


def checkpointing(training: Walk | None) -> Finding:
    """GRAD012.

    Args:
        training: a forward with checkpointing as in training; None where no layer checkpoints in the
            reentrant way.
    """
    if training is None:
        return finding("GRAD012", "ok", "no layer checkpoints in the reentrant way")
    severed = [cut for cut in training.cuts if cut.checkpointed and cut.how == "output"]
    if not severed:
        return finding("GRAD012", "ok", "reentrant checkpointing, and its inputs require grad")
    return finding(
        "GRAD012",
        "fail",
        f"{_place(severed[0])}: checkpointed with use_reentrant=True and no input that requires grad, so its "
        "output has no graph in training",
        value=severed[0].name,
        evidence={"module": severed[0].name, "class": severed[0].class_name},
    )


def inside(walked: Walk) -> Finding:
    """GRAD013: the first module that loses the graph."""
    if not walked.cuts:
        return finding("GRAD013", "ok", f"no module among {walked.modules} calls loses the graph")
    first = walked.cuts[0]
    # What encloses the first cut, or gets nothing but what it has cut, loses the graph for that reason.
    further = [
        _place(cut)
        for cut in walked.cuts[1:]
        if cut.input_requires_grad and not f"{first.name}.".startswith(f"{cut.name}." if cut.name else "")
    ]
    more = f"; so do {len(further)} more of their own ({', '.join(further[:3])})" if further else ""
    return finding(
        "GRAD013",
        "fail",
        f"{_place(first)}: {_what(first)}{more}",
        value=first.name or "the model",
        evidence={
            "module": first.name,
            "class": first.class_name,
            "called by": f"{first.caller} ({first.caller_class})" if first.caller_class else "the probe",
            "snippet": first.snippet,
            **({"further": further} if further else {}),
        },
    )


def differ(once: Tensor, again: Tensor) -> bool:
    """Whether two S [N] of the same sequences, on the CPU, differ by more than rounding of the largest."""
    return bool(((once - again).abs() > SAME * max(1.0, float(once.abs().max()))).any())


def repeated(once: Tensor, again: Tensor, noise: Noise | None) -> Finding:
    """GRAD015.

    Args:
        once: S [N], nats.
        again: S [N] of the same sequences, scored again.
        noise: where it comes from, if that is known.
    """
    if not differ(once, again):
        return finding("GRAD015", "ok", "two identical forwards agree")
    largest = float((once - again).abs().max())
    origin = f", from {noise.name or 'the model'} ({noise.class_name})" if noise else ""
    return finding(
        "GRAD015",
        "warn",
        f"expected the same S twice in eval mode, saw it differ by up to {largest:.3g} nats{origin}: dropout "
        "that stays active, or other noise",
        value=largest,
        evidence={"module": noise.name, "class": noise.class_name} if noise else {},
    )


def _place(cut: Cut) -> str:
    return f"{cut.name or 'the model'} ({cut.class_name})"


def _what(cut: Cut) -> str:
    caller = f"{cut.caller or 'the model'} ({cut.caller_class})"
    if cut.how == "unused":
        return (
            f"output requires grad, S depends on its value and has no path to it; {caller} cuts the graph "
            "after this module, before the next one that has a gradient"
        )
    why = ""
    if cut.how == "no_grad":
        why = f"; {caller} calls it with gradients off"
    elif cut.hooks:
        why = f"; it has {cut.hooks} forward hook{'s' if cut.hooks > 1 else ''}: look there too"
    if cut.input_requires_grad:
        return f"input requires grad, output does not{why}"
    return f"trainable parameters run in it, output does not require grad{why}"

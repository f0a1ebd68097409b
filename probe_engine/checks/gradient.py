"""GRAD: does gradient flow from S to every parameter?"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from probe_engine.model.cut_graph import Walk
from probe_engine.model.gradient_flow import Arrival, GradContext, Gradients
from probe_engine.registry import ParameterRegistry
from probe_engine.report import Finding, IdMatch, finding
from probe_engine.vectors import ParameterVector, Summary

NAMES_SHOWN = 8


def context(seen: GradContext) -> list[Finding]:
    """GRAD001, GRAD002, GRAD022."""
    if seen.inference_mode:
        inference = finding(
            "GRAD001",
            "fail",
            "expected inference mode off, it is on around this call: the forward records no graph, "
            "so every gradient is None",
            value=str(seen),
        )
    elif seen.inference_tensors:
        names = seen.inference_tensors
        inference = finding(
            "GRAD001",
            "fail",
            f"{len(names)} parameters or buffers were born under inference_mode and can't take part in a "
            f"graph, {names[0]} first",
            value=len(names),
            evidence={"tensors": _some(names)},
            remedy="Load or wrap the model outside of inference_mode.",
        )
    else:
        inference = finding("GRAD001", "ok", "inference mode off", value=str(seen))
    if seen.grad_enabled or seen.inference_mode:
        grad = finding("GRAD002", "ok" if seen.grad_enabled else "skip", "grad on")
        if not seen.grad_enabled:
            grad = finding("GRAD002", "skip", "waits for GRAD001: inference mode turns grad off as well")
    else:
        grad = finding(
            "GRAD002",
            "fail",
            "expected gradients on, torch.no_grad (or set_grad_enabled(False)) is around this call: "
            "the forward records no graph, so every gradient is None",
            value=str(seen),
        )
    return [inference, grad, _autocast(seen)]


def _autocast(seen: GradContext) -> Finding:
    if not seen.autocast:
        return finding("GRAD022", "ok", "autocast off")
    return finding(
        "GRAD022",
        "warn",
        f"expected no autocast, torch.autocast to {seen.autocast} is around this call: S and gradients "
        "computed inside of it are rounded to that dtype; the probe scores without it",
        value=seen.autocast,
    )


def graph(seen: Walk, arrival: Arrival, registry: ParameterRegistry) -> list[Finding]:
    """GRAD003, GRAD004, GRAD006: the links of the chain, in order."""
    if seen.logits_grad_fn is None or not len(registry):
        # enable_input_require_grads() gives a graph even where all is frozen.
        expected = (
            "expected logits with a grad_fn, they have none"
            if seen.logits_grad_fn is None
            else "expected logits that hang on parameters, they hang on the embeddings' output alone"
        )
        cause = (
            "no parameter requires grad"
            if not len(registry)
            else f"{len(registry)} parameters require grad, but the graph is cut inside the model"
        )
        return [
            finding("GRAD003", "fail", f"{expected}: {cause}"),
            finding("GRAD004", "skip", "waits for GRAD003"),
            finding("GRAD006", "skip", "waits for GRAD003"),
        ]
    logits = finding("GRAD003", "ok", seen.logits_grad_fn, value=seen.logits_grad_fn)
    if seen.s_grad_fn is None:
        return [
            logits,
            finding(
                "GRAD004",
                "fail",
                "the logits have a grad_fn and S has none: it is cut between logits and S",
            ),
            finding("GRAD006", "skip", "waits for GRAD004"),
        ]
    s = finding("GRAD004", "ok", seen.s_grad_fn, value=seen.s_grad_fn)
    norm = arrival.embedding_gradient_norm
    if norm is not None and not math.isfinite(norm):
        return [logits, s, finding("GRAD006", "skip", "waits for GRAD011: the gradient is not finite")]
    if norm is None or norm == 0:
        arrived = "None" if norm is None else "exactly 0"
        return [
            logits,
            s,
            finding(
                "GRAD006",
                "fail",
                f"expected a gradient at the output of the input embeddings, it is {arrived}: the graph "
                "is cut between the embeddings and the logits",
                value=norm,
            ),
        ]
    return [logits, s, finding("GRAD006", "ok", f"‖∂S/∂embeddings‖ = {norm:.3g}", value=norm)]


def finite(named: Mapping[str, Tensor | Summary], registry: ParameterRegistry) -> Finding:
    """GRAD011.

    Args:
        named: what to look at, by name: S, or what is known of vectors over the registry.
    """
    broken = []
    for which, values in named.items():
        if isinstance(values, Tensor):
            count = int((~torch.isfinite(values)).sum())
            broken += [f"{which} of {count} responses"] if count else []
        else:
            broken += [f"{which}: {registry.names[index]}" for index in values.not_finite]
    if not broken:
        return finding("GRAD011", "ok", f"{', '.join(named)} finite")
    return finding(
        "GRAD011",
        "fail",
        f"expected finite {', '.join(named)}, found NaN or infinity in {len(broken)} of their tensors, "
        f"{broken[0]} first: what they take part in is null",
        value=len(broken),
        threshold=0,
        evidence={"parameters": _some(broken)},
    )


def weights(seen: Gradients) -> Finding:
    """GRAD005."""
    dead = [
        name for name, alive in (("X", seen.x_weights_nonzero), ("Y", seen.y_weights_nonzero)) if not alive
    ]
    if not dead:
        return finding("GRAD005", "ok", "∂L_X/∂S and ∂L_Y/∂S non-zero")
    reasons = {
        "X": "the responses of each group have the same (S + 1)λ",
        "Y": "every advantage is 0",
    }
    return finding(
        "GRAD005",
        "fail",
        f"expected non-zero weights of S, those in L_{' and L_'.join(dead)} are all 0: "
        + "; ".join(reasons[name] for name in dead),
        value=", ".join(dead),
    )


def unused(seen: Gradients, registry: ParameterRegistry, ran: Collection[str]) -> Finding:
    """GRAD023: no gradient, and no module that holds the parameter was called.

    Args:
        seen: X and Y.
        registry: the trainable parameters.
        ran: names of those whose modules one forward called.
    """
    idle = [
        name for name, g in zip(registry.names, seen.x.tensors, strict=True) if g is None and name not in ran
    ]
    if not idle:
        return finding("GRAD023", "ok", "the forward uses every trainable parameter")
    return finding(
        "GRAD023",
        "fail",
        f"expected the forward to use all {len(registry)} trainable parameters, {len(idle)} of them belong "
        f"to modules that it does not call, {idle[0]} first: no cut keeps their gradient away, nothing asks "
        "for it",
        value=len(idle),
        threshold=0,
        evidence={"parameters": _some(idle)},
    )


def counts(seen: Gradients, registry: ParameterRegistry) -> list[Finding]:
    """GRAD007, GRAD008, GRAD009."""
    total = len(registry)
    findings = [
        _none(code, name, vector, registry)
        for code, name, vector in (("GRAD007", "X", seen.x), ("GRAD008", "Y", seen.y))
    ]
    explained = fresh_adapter_parameters(registry)
    zero = {
        f"{which}: {name}"
        for which, vector, alive in (
            ("X", seen.x, seen.x_weights_nonzero),
            ("Y", seen.y, seen.y_weights_nonzero),
        )
        if alive  # zero weights are GRAD005, not a dead path
        for (name, _), g in zip(registry, vector.tensors, strict=True)
        if g is not None and not g.any() and name not in explained
    }
    if zero:
        findings.append(
            finding(
                "GRAD009",
                "fail",
                f"expected non-zero gradients, {len(zero)} are present but exactly 0, {min(zero)} first",
                value=len(zero),
                threshold=0,
                evidence={"parameters": _some(sorted(zero))},
            )
        )
    else:
        note = f" ({len(explained)} are 0 because their lora_B is 0)" if explained else ""
        findings.append(
            finding(
                "GRAD009", "ok", f"X {seen.x.non_zero}/{total}, Y {seen.y.non_zero}/{total} non-zero{note}"
            )
        )
    return findings


def identity(match: IdMatch) -> Finding:
    """GRAD010."""
    text = f"{match.matched} matched, {match.missing} missing, {match.stray} stray"
    if match.missing or match.stray:
        return finding(
            "GRAD010",
            "fail",
            f"expected registry and μ_Y to hold the live model's parameters, found {text}: the buffers were "
            "built before the model was wrapped, cast or reloaded",
            value=text,
        )
    return finding("GRAD010", "ok", text, value=text)


def fresh_adapter_parameters(registry: ParameterRegistry) -> set[str]:
    """Names of lora_A whose lora_B is all 0: their gradients are exactly 0, rightly."""
    by_name = dict(iter(registry))
    fresh = set()
    for name, parameter in registry:
        partner = by_name.get(
            name.replace("lora_A", "lora_B").replace("lora_embedding_A", "lora_embedding_B")
        )
        if partner is not None and partner is not parameter and not torch.any(partner):
            fresh.add(name)
    return fresh


def _none(code: str, which: str, vector: ParameterVector, registry: ParameterRegistry) -> Finding:
    total = len(registry)
    missing = [n for (n, _), g in zip(registry, vector.tensors, strict=True) if g is None]
    text = f"{total - len(missing)}/{total} non-None, {vector.non_zero} non-zero"
    if missing:
        return finding(
            code,
            "fail",
            f"expected a gradient of L_{which} for all {total} registry parameters, {len(missing)} are None, "
            f"{missing[0]} first",
            value=len(missing),
            threshold=0,
            evidence={"parameters": _some(missing)},
        )
    return finding(code, "ok", text, value=text)


def _some(names: Sequence[str]) -> list[str]:
    rest = len(names) - NAMES_SHOWN
    return list(names[:NAMES_SHOWN]) + ([f"… and {rest} more"] if rest > 0 else [])

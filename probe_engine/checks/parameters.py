"""GRAD014, GRAD016: does each parameter hold its values, and does it count once?"""

from __future__ import annotations

from torch.distributed.tensor import DTensor

from probe_engine.model.wrapping import Hidden
from probe_engine.registry import ParameterRegistry
from probe_engine.report import Finding, finding
from probe_engine.sources.checkpoints.names import listed, shown


def present(hidden: Hidden | None, registry: ParameterRegistry) -> Finding:
    """GRAD014.

    Args:
        hidden: parameters without values in this process.
        registry: the trainable parameters.
    """
    if hidden is not None:
        return finding(
            "GRAD014",
            "fail",
            f"expected parameters that hold their values, {len(hidden.names)} are hidden by {hidden.by} "
            f"({shown(hidden.names)}): gradients, norms and the optimizer's state can't be laid on them here",
            value=len(hidden.names),
            threshold=0,
            evidence={"parameters": listed(hidden.names)},
        )
    meshes = {p.device_mesh.size() for p in registry.parameters if isinstance(p, DTensor)}
    if meshes:
        return finding(
            "GRAD014",
            "info",
            f"parameters are shards (DTensor) on {max(meshes)} ranks: every rank must make this call; all "
            "look at the first rank's group, and norms are those of the whole parameters",
            value=max(meshes),
            remedy="",
            commands=(),
        )
    return finding("GRAD014", "ok", "every parameter holds its values")


def counted_once(registry: ParameterRegistry) -> Finding:
    """GRAD016: two Parameter objects over one memory.

    Args:
        registry: the trainable parameters; a tied weight, one object under two names, is in it once.
    """
    first: dict[tuple[int, str], str] = {}
    twice = []
    for name, parameter in registry:
        where = parameter.data_ptr()
        if where == 0:  # a shard, or no element at all
            continue
        other = first.setdefault((where, str(parameter.device)), name)
        if other != name:
            twice.append(f"{name} = {other}")
    if not twice:
        return finding("GRAD016", "ok", "no two parameters share memory")
    return finding(
        "GRAD016",
        "warn",
        f"expected one Parameter a weight, {len(twice)} share their memory with another one "
        f"({shown(twice)}): each gets a part of the gradient, both count in every dot product, and an "
        "optimizer steps the weight twice",
        value=len(twice),
        threshold=0,
        evidence={"parameters": listed(twice)},
    )

"""δH₁ from one batch: the cross-prompt U-statistic and the V-statistic.

B                units (prompts, or blocks of prompts)
diagonal         X_n·P Y_n                        [B]
x_dot_sum_py     X_n·P ΣY, over all B units       [B]
py_dot_sum_x     P Y_n·ΣX, over all B units       [B]
r                row means, method.md (7)         [B]
η                learning rate; dot products come without it

U_cross > 0 means that entropy falls: δH₁ = −η·U_cross.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probe_engine.estimators.intervals import smallest_size, t_interval, t_quantile
from probe_engine.report import UStatistic, VStatistic


def row_means(diagonal: Tensor, x_dot_sum_py: Tensor, py_dot_sum_x: Tensor, B: int | None = None) -> Tensor:
    """r_n = −½( X_n·PȲ_{−n} + P Y_n·X̄_{−n} ), method.md (7); their mean is U_cross, exactly.

    Args:
        diagonal, x_dot_sum_py, py_dot_sum_x: of some units, [b].
        B: units behind the sums; b where it is not given.

    Returns:
        r, float64 [b], without η.

    Raises:
        ValueError: B < 2, or shapes that differ.
    """
    given = _units(diagonal, x_dot_sum_py, py_dot_sum_x)
    B = given if B is None else B
    if B < 2:
        raise ValueError(f"a mean over pairs of units needs 2 units or more, got {B}")
    others = x_dot_sum_py.double() + py_dot_sum_x.double() - 2 * diagonal.double()
    return -0.5 * others / (B - 1)


def u_cross(diagonal: Tensor, x_dot_sum_py: Tensor, py_dot_sum_x: Tensor) -> float:
    """U_cross = −[ (B/(B−1))·X̄·PȲ − (1/(B(B−1)))·Σ_n X_n·P Y_n ], method.md (6), without η.

    Raises:
        ValueError: B < 2, or shapes that differ.
    """
    B = _pairable(diagonal, x_dot_sum_py, py_dot_sum_x)
    mean_x_dot_mean_py = _mean_projection(x_dot_sum_py, py_dot_sum_x).mean()
    return -float((B * mean_x_dot_mean_py - diagonal.double().mean()) / (B - 1))


def u_statistic(r: Tensor, eta: float, pairs: Tensor | None = None) -> UStatistic:
    """δH₁ = −η·U_cross with plug-in and jackknife standard errors, method.md (8)(9)(10).

    ζ̂₁ = Σ(r_n − U)²/(B−1), SE_plugin = η√(4ζ̂₁/B); U_{−n} = (B·U − 2r_n)/(B−2),
    SE_jackknife² = η²·((B−1)/B)·Σ(U_{−n} − mean)²; `ci95` is δH₁ ± t_{B−1}·SE_jackknife.

    Args:
        r: [B], row means without η.
        eta: η.
        pairs: [B, B], X_u·P Y_v without η where it was kept; gives ζ̂₂, the variance of h(u,v) over pairs.

    Returns:
        ζ̂₁, ζ̂₂ without η; `prompts_needed` counts units, at U_cross and ζ̂ as they are here.
        At B = 2 both row means are h(1,2), so that no spread is known: errors and interval are None.

    Raises:
        ValueError: B < 2, which has no pair.
    """
    B = len(r)
    if B < 2:
        raise ValueError(f"a mean over pairs of units needs 2 units or more, got {B}")
    r = r.double()
    U = float(r.mean())
    if B == 2:
        return UStatistic(
            u_cross=U,
            delta_h1=-eta * U,
            se_plugin=None,
            se_jackknife=None,
            ci95=None,
            zeta1=None,
            zeta2=None,
            B=B,
            prompts_needed=None,
        )
    zeta1 = float(r.var())
    zeta2 = None if pairs is None else _pair_variance(pairs)
    without = (B * U - 2 * r) / (B - 2)
    jackknife_variance = float((B - 1) / B * (without - without.mean()).square().sum())
    se_jackknife = eta * math.sqrt(jackknife_variance)

    def half_width(size: int) -> float:
        variance = 4 * zeta1 / size + 2 * (zeta2 or 0.0) / (size * (size - 1))
        return t_quantile(size - 1) * math.sqrt(variance)

    return UStatistic(
        u_cross=U,
        delta_h1=-eta * U,
        se_plugin=eta * math.sqrt(4 * zeta1 / B),
        se_jackknife=se_jackknife,
        ci95=t_interval(-eta * U, se_jackknife, B - 1),
        zeta1=zeta1,
        zeta2=zeta2,
        B=B,
        prompts_needed=smallest_size(U, half_width, start=3),
    )


def v_statistic(diagonal: Tensor, x_dot_sum_py: Tensor, py_dot_sum_x: Tensor, eta: float) -> VStatistic:
    """η·X̄·PȲ, diagonal included: what a step chosen by these very samples does to them (method.md §6).

    SE = η√(4·var(v)/B) from the first-order projection v_n = ½( X_n·PȲ + X̄·P Y_n ), t_{B−1}.

    Returns:
        δH₁ with η; error and interval are None at B = 1.

    Raises:
        ValueError: no unit, or shapes that differ.
    """
    B = _units(diagonal, x_dot_sum_py, py_dot_sum_x)
    v = _mean_projection(x_dot_sum_py, py_dot_sum_x)
    delta = eta * float(v.mean())
    se = eta * math.sqrt(4 * float(v.var()) / B) if B >= 2 else None
    return VStatistic(delta_h1=delta, se=se, ci95=t_interval(delta, se, B - 1))


def one_sided(diagonal: Tensor, x_dot_sum_py: Tensor, py_dot_sum_x: Tensor) -> tuple[Tensor, Tensor]:
    """X_n·PȲ_{−n} and P Y_n·X̄_{−n}, both [B]: the halves of −r_n of (7), each with the mean −U_cross.

    r_n can't show a unit that carries everything: each of its pairs is half another unit's. The halves do.

    Raises:
        ValueError: B < 2, or shapes that differ.
    """
    B = _pairable(diagonal, x_dot_sum_py, py_dot_sum_x)
    x, y = ((dots.double() - diagonal.double()) / (B - 1) for dots in (x_dot_sum_py, py_dot_sum_x))
    return x, y


def diagonal_share(diagonal: Tensor, x_dot_sum_py: Tensor, py_dot_sum_x: Tensor) -> float | None:
    """(1/B²)·Σ X_n·P Y_n over X̄·PȲ: how much of the V-statistic is self-influence (method.md §6).

    Beyond 1, or below 0, where the pairs of different units pull the other way. None where X̄·PȲ is 0.

    Raises:
        ValueError: no unit, or shapes that differ.
    """
    B = _units(diagonal, x_dot_sum_py, py_dot_sum_x)
    whole = float(_mean_projection(x_dot_sum_py, py_dot_sum_x).mean())
    return float(diagonal.double().mean()) / B / whole if whole else None


def _mean_projection(x_dot_sum_py: Tensor, py_dot_sum_x: Tensor) -> Tensor:
    """½( X_n·PȲ + X̄·P Y_n ), [B]; its mean is X̄·PȲ."""
    return 0.5 * (x_dot_sum_py.double() + py_dot_sum_x.double()) / len(x_dot_sum_py)


def _pair_variance(pairs: Tensor) -> float:
    """ζ̂₂: variance of h(u,v) = −½(X_u·P Y_v + X_v·P Y_u), method.md (5), over unordered pairs."""
    h = -0.5 * (pairs.double() + pairs.double().T)
    u, v = torch.triu_indices(len(h), len(h), offset=1, device=h.device)
    return float(h[u, v].var())


def _units(*values: Tensor) -> int:
    shapes = {tuple(v.shape) for v in values}
    if len(shapes) != 1 or len(values[0].shape) != 1 or not len(values[0]):
        raise ValueError(f"expected one number a unit in each argument, got shapes {sorted(shapes)}")
    return len(values[0])


def _pairable(*values: Tensor) -> int:
    B = _units(*values)
    if B < 2:
        raise ValueError(f"a mean over pairs of units needs 2 units or more, got {B}")
    return B

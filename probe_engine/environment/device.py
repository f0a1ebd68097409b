"""Is there such a device, and does it compute in that dtype?"""

from __future__ import annotations

import torch

from probe_engine.errors import USAGE, ProbeError, memory_ran_out

_NO_DEVICE = (RuntimeError, AssertionError)
"""torch's two ways of saying that it was not built for a device or finds none."""


def existing_device(name: str) -> torch.device:
    """The device that `--device` names; `auto` is CUDA where there is one.

    Raises:
        ProbeError: there is no such device here (ENV002, exit code 2).
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type != "meta":
            torch.empty(1, device=device)
            return device
        words = "meta tensors hold no numbers"
    except _NO_DEVICE as error:
        words = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    raise ProbeError(
        f"--device: expected a device of this machine, got {name!r} ({words}): nothing can be computed there",
        f"Name a device that is here: {', '.join(devices())}; auto chooses.",
        code="ENV002",
        commands=("probe-tui CHECKPOINT --device cpu",),
        exit_code=USAGE,
    )


def devices() -> list[str]:
    """The devices of this machine that torch can use, by name."""
    accelerators = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu", *accelerators, *(["mps"] if torch.backends.mps.is_available() else [])]


def completed(device: torch.device) -> None:
    """Waits for what was handed to the device: a clock that is read before tells of the queue alone."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def trial(device: torch.device, dtype: torch.dtype) -> str:
    """Multiplies two small matrices there and differentiates the product.

    Returns:
        what went wrong, empty where nothing did.
    """
    if device.type == "meta":
        return "meta tensors hold no numbers: the weights were never loaded, or are offloaded"
    try:
        # Whatever surrounds the call, this asks the device and not autograd's switches.
        with torch.inference_mode(False), torch.enable_grad():
            a = torch.full((4, 4), 0.5, device=device, dtype=dtype, requires_grad=True)
            (gradient,) = torch.autograd.grad((a @ a).sum(), a)
        # ∂/∂a_ij Σ(aa) = Σ_k a_jk + Σ_k a_ki = 4 · ½ + 4 · ½, exact in every floating-point format.
        wrong = not bool((gradient == 4).all())
    except (*_NO_DEVICE, TypeError) as error:
        if memory_ran_out(error):
            raise
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
    return "the gradient of a product of two small matrices came out wrong" if wrong else ""

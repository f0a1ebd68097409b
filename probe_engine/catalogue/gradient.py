"""GRAD: does gradient flow from S to every parameter?"""

from __future__ import annotations

from probe_engine.catalogue.entry import Entry

ENTRIES = (
    Entry(
        "GRAD001",
        "grad context",
        "inference_mode around the call",
        "Under torch.inference_mode() no graph is recorded, and tensors born in it can never take part "
        "in one. Sampling belongs under it; scoring does not.",
        "Restrict inference_mode to sampling and call the probe outside of it.",
        ("python -c 'import torch; print(torch.is_inference_mode_enabled())'",),
    ),
    Entry(
        "GRAD002",
        "grad enabled",
        "no_grad around the call",
        "Under torch.no_grad(), or after torch.set_grad_enabled(False), the forward records no graph and "
        "every gradient is None. Evaluation callbacks are often called inside of it.",
        "Call the probe outside of no_grad, or inside `with torch.enable_grad():`.",
    ),
    Entry(
        "GRAD003",
        "logits grad_fn",
        "the logits have no grad_fn",
        "The forward produced logits without a graph: no parameter requires grad, or the graph is cut "
        "inside the model.",
        "Check p.requires_grad of the adapter (PeftModel.from_pretrained(…, is_trainable=True)), and "
        "look for detach(), .data or no_grad in the model's forward.",
    ),
    Entry(
        "GRAD004",
        "S grad_fn",
        "S has no grad_fn",
        "S = Σ log π must hang on the logits. The logits have a graph and S has none, so it was computed "
        "from detached values: a detach(), a .data, a conversion to numpy, or old log-probabilities.",
        "Don't detach or convert log-probabilities between logits and S.",
    ),
    Entry(
        "GRAD005",
        "∂L/∂S",
        "∂L/∂S is exactly 0",
        "Every weight of S in L_X or L_Y is 0, so X or Y is 0 whatever the model: all advantages are 0, "
        "or all responses of every group have the same (S + 1)λ.",
        "Take groups with different rewards and different responses.",
    ),
    Entry(
        "GRAD006",
        "input embeddings",
        "gradient does not reach the input embeddings",
        "The gradient of S with respect to the output of the input embedding is None or 0: the graph is "
        "cut between the embedding and the logits. LoRA layers above the cut still get a gradient, those "
        "below get none.",
        "Look for detach(), no_grad or reentrant checkpointing between the layers.",
    ),
    Entry(
        "GRAD007",
        "X gradients",
        "X: gradients are None",
        "Autograd found no path from L_X = −(1/G) Σ c·S to some registry parameters. Either the graph is cut "
        "below them, or the forward does not use them (an adapter that is not active, an unused head).",
        "See GRAD003 and GRAD006 first; parameters that the forward does not use should be frozen.",
    ),
    Entry(
        "GRAD008",
        "Y gradients",
        "Y: gradients are None",
        "Autograd found no path from L_Y = (1/G) Σ A·κ·S to some registry parameters. L_X and L_Y share S, "
        "so GRAD007 names the same parameters, and the cause is the same.",
        "See GRAD003 and GRAD006 first; parameters that the forward does not use should be frozen.",
    ),
    Entry(
        "GRAD009",
        "zero gradients",
        "gradients are present but exactly 0",
        "A parameter has a gradient and all of it is 0. In a fresh adapter every lora_B is 0, and then "
        "lora_A's gradients are 0 rightly; elsewhere a dead path or an underflow is at work.",
        "Look at the named parameters: which factor multiplies them by 0?",
    ),
    Entry(
        "GRAD010",
        "registry / μ_Y",
        "registry and μ_Y ids differ",
        "Buffers are keyed by parameter object. When a model is wrapped, merged, cast or reloaded after "
        "the buffers were built, its parameters are other objects, and every lookup misses.",
        "Build registry, optimizer and buffers once, after the last wrapping.",
    ),
    Entry(
        "GRAD011",
        "finite gradients",
        "S or a gradient is not finite",
        "A NaN or an infinity in S, X, Y or P·Y spreads to every dot product that it takes part in; those "
        "are null in the report. A weight is not finite (CKPT006), the forward overflows in this dtype, "
        "an advantage is huge, or a v̂ of 0 meets an ε of 0.",
        "See CKPT006 first, and look at what is named.",
        ("probe-tui CHECKPOINT --dtype float32",),
    ),
)

"""GRAD: does gradient flow from S to every parameter?"""

from __future__ import annotations

from probe_engine.catalogue.entry import Entry

ENTRIES = (
    Entry(
        "GRAD001",
        "grad context",
        "inference_mode around the call",
        "Under torch.inference_mode() no graph is recorded, and tensors born in it can never take part "
        "in one. Every gradient is None.",
        "Restrict inference_mode to sampling and call the probe outside of it.",
        ("python -c 'import torch; print(torch.is_inference_mode_enabled())'",),
        origin=(
            "Sampling runs under it, rightly, and scoring was put inside the same block, or the model was "
            "loaded or wrapped in it."
        ),
        by_hand=(
            "torch.is_inference_mode_enabled(), and [n for n, p in model.named_parameters() if "
            "p.is_inference()]."
        ),
    ),
    Entry(
        "GRAD002",
        "grad enabled",
        "no_grad around the call",
        "The forward records no graph, and every gradient is None.",
        "Call the probe outside of no_grad, or inside `with torch.enable_grad():`.",
        origin=(
            "torch.no_grad() is around the call, as in evaluation callbacks and decorated methods, or "
            "torch.set_grad_enabled(False) was never undone."
        ),
        by_hand="torch.is_grad_enabled() where the model is called.",
    ),
    Entry(
        "GRAD003",
        "logits grad_fn",
        "the logits have no grad_fn",
        "The forward produced logits without a graph: whatever is computed from them has none, and "
        "every gradient is None.",
        "Check p.requires_grad of the adapter (PeftModel.from_pretrained(…, is_trainable=True)), and "
        "look for detach(), .data or no_grad in the model's forward.",
        causes=("PEFT002", "PEFT003", "PEFT001", "PEFT004", "GRAD013"),
        origin="No parameter requires grad, or the graph is cut inside the model.",
        by_hand="model(**inputs).logits.grad_fn is None.",
    ),
    Entry(
        "GRAD004",
        "S grad_fn",
        "S has no grad_fn",
        "S = Σ log π must hang on the logits. The logits have a graph and S has none.",
        "Don't detach or convert log-probabilities between logits and S.",
        origin=(
            "S was computed from detached values: a detach(), a .data, a conversion to numpy, or old "
            "log-probabilities in place of new ones."
        ),
        by_hand="Print .grad_fn after every line between logits and S.",
    ),
    Entry(
        "GRAD005",
        "∂L/∂S",
        "∂L/∂S is exactly 0",
        "Every weight of S in L_X or L_Y is 0, so X or Y is 0 whatever the model.",
        "Take groups with different rewards and different responses.",
        causes=("ROLL003",),
        origin="All advantages are 0, or all responses of every group have the same (S + 1)λ.",
        by_hand="torch.autograd.grad(L, S) is all zeros.",
    ),
    Entry(
        "GRAD006",
        "input embeddings",
        "gradient does not reach the input embeddings",
        "The gradient of S with respect to the output of the input embedding is None or 0: the graph is "
        "cut in between. What lies above the cut still gets a gradient, what lies below gets none.",
        "Look for detach(), no_grad or reentrant checkpointing between the layers.",
        causes=("GRAD013", "GRAD003"),
        origin="detach(), no_grad or reentrant checkpointing between the layers.",
        by_hand=(
            "embeddings.register_forward_hook(lambda m, i, out: out.requires_grad_()), then "
            "torch.autograd.grad(S.sum(), out, allow_unused=True)."
        ),
    ),
    Entry(
        "GRAD007",
        "X gradients",
        "X: gradients are None",
        "Autograd found no path from L_X = −(1/G) Σ c·S to some registry parameters: X lacks them, and "
        "so does every dot product.",
        "See GRAD003 and GRAD006 first; parameters that the forward does not use should be frozen.",
        causes=("PEFT002", "PEFT003", "PEFT004", "GRAD013", "GRAD006"),
        origin=(
            "The graph is cut below them, or the forward does not use them (an adapter that is not active, "
            "an unused head, an expert that no token chose)."
        ),
        by_hand="torch.autograd.grad(L_X, parameters, allow_unused=True) holds None.",
    ),
    Entry(
        "GRAD008",
        "Y gradients",
        "Y: gradients are None",
        "Autograd found no path from L_Y = (1/G) Σ A·κ·S to some registry parameters. L_X and L_Y share "
        "S, so GRAD007 names the same parameters.",
        "See GRAD003 and GRAD006 first; parameters that the forward does not use should be frozen.",
        causes=("PEFT002", "PEFT003", "PEFT004", "GRAD013", "GRAD006", "GRAD007"),
        origin="That of GRAD007.",
        by_hand="torch.autograd.grad(L_Y, parameters, allow_unused=True) holds None.",
    ),
    Entry(
        "GRAD009",
        "zero gradients",
        "gradients are present but exactly 0",
        "A parameter has a gradient and all of it is 0: it does not train, and says so nowhere.",
        "Look at the named parameters: which factor multiplies them by 0?",
        origin=(
            "A factor of 0 on its path: a gate that is closed, a scaling of 0, a dead activation, an "
            "underflow in low precision. (In a fresh adapter every lora_B is 0, and lora_A's gradients are "
            "0 rightly; those don't count.)"
        ),
        by_hand=(
            "[n for n, p in model.named_parameters() if p.grad is not None and not p.grad.any()] after a "
            "backward."
        ),
    ),
    Entry(
        "GRAD010",
        "registry / μ_Y",
        "registry and μ_Y ids differ",
        "Buffers are keyed by parameter object. Where the model holds other objects, every lookup "
        "misses, and what is missed is silently left out.",
        "Build registry, optimizer and buffers once, after the last wrapping.",
        origin="The model was wrapped, merged, cast or reloaded after the buffers were built.",
        by_hand="{id(p) for p in model.parameters()} beside the keys of the buffers.",
    ),
    Entry(
        "GRAD011",
        "finite gradients",
        "S or a gradient is not finite",
        "A NaN or an infinity in S, X, Y or P·Y spreads to every dot product that it takes part in; "
        "those are null in the report.",
        "See CKPT006 first, and look at what is named.",
        ("probe-tui CHECKPOINT --dtype float32",),
        causes=("CKPT006",),
        origin=(
            "A weight is not finite (CKPT006), the forward overflows in this dtype, an advantage is huge, "
            "or a v̂ of 0 meets an ε of 0."
        ),
        by_hand=(
            "torch.autograd.set_detect_anomaly(True) names the operation; isfinite().all() on S tells "
            "whether it is the forward."
        ),
    ),
    Entry(
        "GRAD012",
        "gradient checkpointing",
        "gradient checkpointing severs the graph",
        "A checkpointed layer runs without a graph and gets one afterwards only if one of its inputs "
        "requires a gradient. The adapters inside get none, and torch says no more than a warning. "
        "Checkpointing is off in eval mode: an evaluation, and the probe's own numbers, don't show it; "
        "training meets it.",
        "Use the non-reentrant way, or let the input embeddings' output require a gradient.",
        (
            "model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={'use_reentrant': False})",
            "model.enable_input_require_grads()",
        ),
        "https://github.com/huggingface/transformers/issues/42489",
        origin="use_reentrant=True under a frozen base, whose embeddings' output requires no gradient.",
        by_hand=(
            "In train mode: model(**inputs).logits.grad_fn is None, or all adapter gradients below the last "
            "layer are."
        ),
    ),
    Entry(
        "GRAD013",
        "graph inside the model",
        "the graph breaks inside the model",
        "A module's output has no graph although its input has one or trainable parameters ran in it. "
        "All below it gets no gradient through it. Where a residual connection goes round it nothing is "
        "None, and X and Y are wrong in silence.",
        "Look into the forward of the module that is named for detach(), .data, numpy() or no_grad, and at "
        "the hooks on it.",
        origin=(
            "Its forward, or a hook on it, detaches, takes .data, converts to numpy, or runs under no_grad."
        ),
        by_hand="The snippet in the finding's evidence.",
    ),
    Entry(
        "GRAD015",
        "repeated forward",
        "two identical forwards differ",
        "The same tokens, scored twice in eval mode, gave different log-probabilities. S then differs "
        "between passes, and importance weights carry the noise.",
        "Pass training=self.training to functional dropout in the module that is named; switch noise off.",
        origin=(
            "Dropout that ignores eval mode (torch.nn.functional.dropout without training=self.training), "
            "sampled noise, or a state that each forward changes."
        ),
        by_hand="torch.equal(model(**inputs).logits, model(**inputs).logits) in eval mode.",
    ),
)

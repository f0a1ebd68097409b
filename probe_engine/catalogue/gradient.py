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
        ("with torch.inference_mode(): samples = model.generate(**prompts)  # and nothing else",),
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
        causes=("ROLL015", "ROLL003"),
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
        causes=("PEFT002", "PEFT003", "PEFT004", "GRAD013", "GRAD006", "GRAD010", "GRAD023"),
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
        causes=("PEFT002", "PEFT003", "PEFT004", "GRAD013", "GRAD006", "GRAD010", "GRAD023", "GRAD007"),
        origin="That of GRAD007.",
        by_hand="torch.autograd.grad(L_Y, parameters, allow_unused=True) holds None.",
    ),
    Entry(
        "GRAD009",
        "zero gradients",
        "gradients are present but exactly 0",
        "A parameter has a gradient and all of it is 0: it does not train, and says so nowhere.",
        "Look at the named parameters: which factor multiplies them by 0?",
        causes=("GRAD018",),
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
        by_hand="The snippet that the finding brings (evidence['snippet'] of the finding, in Python).",
    ),
    Entry(
        "GRAD014",
        "hidden parameters",
        "a wrapper hides parameters",
        "The parameters that the model lists hold no values in this process: a wrapper keeps them "
        "elsewhere and brings them in for the moment of a forward pass. Gradients don't arrive at the "
        "listed objects, shapes and norms are not theirs, and an optimizer's state has nothing to be laid "
        "on. FSDP2 (fully_shard) is read: its parameters are DTensors that stay what they are.",
        "Use fully_shard (FSDP2) instead of FSDP1, load the weights onto a device, or write a checkpoint "
        "with whole weights and probe that.",
        ("accelerator.save_state('checkpoint'); probe-tui checkpoint",),
        "https://github.com/pytorch/pytorch/issues/104690",
        origin=(
            "FSDP1 flattens a module's parameters into one FlatParameter; DeepSpeed's ZeRO-3 empties them "
            "(numel 0) and keeps the values in ds_tensor; accelerate's and device_map's offloading leaves "
            "them on the meta device."
        ),
        by_hand=(
            "print([(n, p.numel(), p.is_meta, hasattr(p, 'ds_id')) for n, p in model.named_parameters()])"
        ),
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
    Entry(
        "GRAD016",
        "shared memory",
        "a weight is counted twice",
        "Two Parameter objects lie on the same memory. Autograd gives each the gradient of its own use "
        "alone, so neither has the weight's gradient; both enter every norm and dot product; and an "
        "optimizer that holds both steps the same numbers twice, with two states. A tied weight is one "
        "object under two names.",
        "Tie by object, before the optimizer is built.",
        ("model.lm_head.weight = model.get_input_embeddings().weight", "model.tie_weights()"),
        origin=(
            "A Parameter was made anew from .data or .detach() of another one, or a loader that ties by "
            "value did so."
        ),
        by_hand="print(len(list(model.parameters())), len({p.data_ptr() for p in model.parameters()}))",
    ),
    Entry(
        "GRAD017",
        "fast method",
        "the fast method disagrees with plain autograd",
        "Every method of --method is another way to the same dot products. On a unit drawn by --seed the "
        "one that was asked for gave other numbers than plain autograd, or none. The run goes on with "
        "loop: its numbers are right and take longer.",
        "Ask for loop, or for a method that needs no second derivative; what the module does in its "
        "backward is to be mended in the module.",
        ("probe-tui CHECKPOINT --method loop",),
        "https://github.com/pytorch/pytorch/issues/117629",
        causes=("GRAD015", "GRAD019", "GRAD020"),
        origin=(
            "alpha and alpha-vjp differentiate the backward pass: fused kernels (attention, norms, "
            "activations in Triton) write a backward that autograd does not record, and their second "
            "derivative is missing, or is 0 in silence. In float16 the direction P·Y overflows."
        ),
        by_hand="torch.autograd.gradgradcheck(module, inputs) of the kernel's module, in float64.",
    ),
    Entry(
        "GRAD018",
        "small gradients",
        "gradients underflow in 16 bits",
        "float16 holds nothing below 6e-8. Weights of S are of size advantage/length, and what they "
        "leave of a small probability's gradient is rounded to 0 on its way, before any dot product "
        "widens it. X and Y are then cut off at the small end, which Adam's P weighs most. bfloat16 has "
        "float32's range and loses nothing this way. Trainers in float16 scale their loss and don't meet "
        "it.",
        "Compute in float32, or in bfloat16; or with fused, which weighs after the model and not before.",
        ("probe-tui CHECKPOINT --dtype float32", "probe-tui CHECKPOINT --method fused"),
        "https://docs.pytorch.org/docs/stable/notes/amp_examples.html",
        origin=(
            "A float16 checkpoint or --dtype float16, and a long --max-completion-length (λ = 1/L_max), a "
            "large vocabulary or small advantages."
        ),
        by_hand=(
            "torch.autograd.grad(S.sum() * w, parameters) against torch.autograd.grad(S.sum() * w * 4096, "
            "parameters) / 4096 in float32: without underflow they are equal bit for bit."
        ),
    ),
    Entry(
        "GRAD019",
        "padding",
        "padding changes the answer",
        "log π of a sequence must not depend on padding beside it. Where the probe pads, it does so on the "
        "right, where a causal model never looks: only a fault that shows there makes its own numbers "
        "wrong. Generation and most trainers pad prompts on the left; where that moves log π, rollouts are "
        "sampled from, and the loss is computed on, another policy than the one without padding.",
        "For the probe: one sequence at a time. For training: prompts of one length, no padding "
        "(per_device_train_batch_size=1), or a forward that obeys attention_mask and is given "
        "position_ids.",
        ("probe-tui CHECKPOINT --micro-batch 1",),
        "https://github.com/huggingface/trl/issues/6800",
        causes=("GRAD020", "GRAD015"),
        origin=(
            "A forward that drops attention_mask (patched attention kernels); learned absolute positions "
            "counted from the padded edge because no position_ids are passed (gpt2, gpt_neo, gpt_bigcode, "
            "biogpt, xglm); recurrent layers whose state runs through the padding (rwkv, recurrent_gemma)."
        ),
        by_hand=(
            "Score a sequence alone, and again with a few pad tokens before it, their attention_mask 0 and "
            "position_ids = attention_mask.cumsum(-1) - 1: the same log-probabilities are due."
        ),
    ),
    Entry(
        "GRAD020",
        "neighbours in a batch",
        "batching changes the answer",
        "log π of a sequence must not depend on which others are scored beside it. Here it does by more "
        "than rounding: S of a response, its gradient and its importance weight hold a part of its "
        "neighbours, and change with --micro-batch. Rounding alone gives about 1e-6 nats a token in "
        "float32, and a few hundredths in bfloat16, where matrix kernels differ by batch size.",
        "One sequence at a time; drop-free routing, and norms that use stored statistics in eval mode.",
        ("probe-tui CHECKPOINT --micro-batch 1",),
        "https://github.com/huggingface/transformers/issues/26869",
        causes=("GRAD015",),
        origin=(
            "Mixture of experts with a capacity (tokens dropped when the batch is full), normalisation by "
            "batch statistics, activations quantised with one scale for the whole batch, a cache that "
            "outlives a call."
        ),
        by_hand="(model(ids).logits[:1] - model(ids[:1]).logits).abs().max(), ids [N, T] without padding.",
    ),
    Entry(
        "GRAD022",
        "autocast",
        "autocast around the call",
        "Under an outer torch.autocast matrix products run in bfloat16 or float16, whatever the weights "
        "are in. S then carries a rounding error of about one percent of a nat per token, gradients one of "
        "2⁻⁸ of themselves, and differences of S between two sets of weights, which is what a step "
        "changes, drown in it. The probe switches it off for its own passes; an autocast inside of the "
        "model's forward, as accelerate puts it there, is a part of the model and stays.",
        "Call the probe outside of autocast; if the model runs under it alone, put it into the model's "
        "forward.",
        ("model.forward = torch.autocast('cuda', torch.bfloat16)(model.forward)",),
        origin="A training loop's `with torch.autocast(...)` is around the call, or a trainer's "
        "compute_loss_context_manager.",
        by_hand="print(torch.is_autocast_enabled('cuda'), torch.is_autocast_enabled('cpu'))",
    ),
    Entry(
        "GRAD021",
        "derivative of the forward",
        "autograd's gradient is not the derivative of the forward",
        "A tiny step along X̄ must change entropy by ‖X̄‖² per unit of step. It doesn't: a part of the "
        "forward that depends on the parameters is hidden from autograd. Training follows autograd, so the "
        "step is the right one; δH₁, made of the same gradient, does not say what the step does. Read the "
        "measured change.",
        "Nothing is broken where the stop-gradient is meant, as in DoRA. Else look for detach(), .data, "
        "rounding or no_grad in what computes with parameters.",
        ("grep -rn 'detach()\\|\\.data\\b' YOUR_MODEL.py",),
        causes=("GRAD013", "GRAD015", "GRAD016", "GRAD009"),
        origin=(
            "DoRA detaches its weight norm; straight-through estimators round in the forward and not in the "
            "backward; the padding_idx of a tied embedding leaves its part out of the row's gradient, also "
            "where that token is a real one."
        ),
        by_hand=(
            "Add ε·p.grad to every parameter, score again, subtract, and compare the change with ε·Σ p.grad²."
        ),
    ),
    Entry(
        "GRAD023",
        "unused parameters",
        "trainable parameters that the forward does not use",
        "No module that holds these parameters is called when S is computed, so they have no gradient of X "
        "or Y, and the policy's loss does not train them. An optimizer that holds them spends memory on "
        "them, and weight decay, if there is any, still moves them.",
        "Freeze them, or call them in the forward.",
        ("for p in model.value_head.parameters(): p.requires_grad_(False)",),
        causes=("PEFT002", "PEFT003", "PEFT004", "GRAD010"),
        origin="A value head or an auxiliary head beside the policy, a second adapter, a skipped layer.",
        by_hand=(
            "After loss.backward(): [n for n, p in model.named_parameters() if p.requires_grad and "
            "p.grad is None]."
        ),
    ),
)

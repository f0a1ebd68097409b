"""OPT: is the Adam state there, does it fit, and is it fit for use?"""

from __future__ import annotations

from probe_engine.catalogue.entry import Entry

ENTRIES = (
    Entry(
        "OPT001",
        "optimizer state",
        "no optimizer state",
        "Adam's geometry P = 1/(√v̂ + ε) comes from exp_avg_sq. Without it every parameter falls back to "
        "P = 1, which is a plain gradient step: δH₁ then has another direction and another scale.",
        "Save with save_only_model=False, or point at a checkpoint that holds optimizer.pt.",
        ("ls CHECKPOINT/optimizer.pt",),
        causes=("PEFT002", "PEFT001"),
    ),
    Entry(
        "OPT002",
        "optimizer family",
        "the optimizer is not of Adam's family",
        "The state's keys say which optimizer wrote it. Adafactor, Muon, 8-bit and schedule-free states "
        "hold no exp_avg_sq to build P from, and nothing is substituted for it.",
        "Probe a run trained with AdamW; the weights can be probed without a preconditioner if you "
        "move optimizer.pt away.",
    ),
    Entry(
        "OPT003",
        "state on parameters",
        "the optimizer state does not fit the parameters",
        "optimizer.pt knows parameters by index. Count and shapes must be those of the trainable "
        "parameters in the trainer's order; otherwise every v̂ would be laid on a wrong parameter.",
        "Use the optimizer.pt of this very checkpoint, with the same adapter configuration.",
        (),
        "https://github.com/huggingface/peft/issues/1313",
    ),
    Entry(
        "OPT004",
        "preconditioner",
        "some parameters have no state",
        "A parameter without state falls back to P = 1. Beside 1/√v̂ ≈ 1e4 elsewhere, 1 is not a scale: "
        "its share of every dot product vanishes. A parameter has no state when it never received a "
        "gradient, or when the optimizer was built before it existed.",
        "Build the optimizer after wrapping the model, and check that these parameters train.",
        causes=("PEFT004", "OPT009"),
    ),
    Entry(
        "OPT005",
        "exp_avg_sq",
        "exp_avg_sq is negative or not finite",
        "v is a running mean of squares: it can't be negative, and √v̂ of such a value is NaN. The file "
        "is corrupt or the run had diverged.",
        "Take an earlier checkpoint.",
    ),
    Entry(
        "OPT006",
        "optimizer step",
        "step is 0, missing or differs between parameters",
        "v̂ = v/(1 − β₂^step) needs the step. At step 0 there is no v̂ at all; different steps mean that "
        "some parameters joined later or skipped updates.",
        "Save the checkpoint after the first optimizer step.",
    ),
    Entry(
        "OPT007",
        "learning rate",
        "the learning rate is 0",
        "The group's lr in checkpoint K is that of step K+1, and the last checkpoint of a decaying "
        "schedule has lr 0. Then the next step is no step and δH₁ = 0, truly.",
        "Say which learning rate to assume, or probe the previous checkpoint.",
        ("probe-tui CHECKPOINT --lr 1e-6",),
    ),
    Entry(
        "OPT009",
        "parameter objects",
        "the optimizer holds other parameter objects than the model",
        "An optimizer steps the very objects that it was given. Where the model was wrapped, cast, merged or "
        "reloaded after the optimizer was built, those are objects that no forward uses: it keeps stepping "
        "them, and the model does not move. By hand: compare id(p) over optimizer.param_groups with id(p) "
        "over model.parameters().",
        "Build the optimizer after the last wrapping of the model.",
        ("optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])",),
    ),
    Entry(
        "OPT010",
        "stale preconditioner",
        "the preconditioner is stale",
        "P comes from past gradients; the optimizer's next step uses a v̂ that includes the new one. "
        "Where v̂ is far below the fresh gradient², as early in training, the frozen P throws the step "
        "onto a few coordinates that AdamW would move by one learning rate. The ratio is "
        "‖PȲ‖/‖P⁺Ȳ‖; above 4 the direction is doubtful, above 10 it is not the optimizer's.",
        "Probe a later checkpoint, or use more prompts, so that the gradient is not mostly noise.",
    ),
    Entry(
        "OPT011",
        "trainer's loss",
        "the trainer's step has parts that the probe does not model",
        "The probe's Y is Σ A·κ·S. A KL term (beta), an entropy bonus, several iterations on one batch, "
        "sequence-level ratios, masking of truncated completions, an importance correction for the "
        "sampler, active dropout, or different learning rates by group change the true step.",
        "Read δH₁ as the policy-gradient part of the step.",
    ),
)

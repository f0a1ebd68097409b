"""OPT: is the Adam state there, does it fit, and is it fit for use?"""

from __future__ import annotations

from probe_engine.catalogue.entry import Entry

ENTRIES = (
    Entry(
        "OPT001",
        "optimizer state",
        "no optimizer state",
        "Adam's geometry P = 1/(√v̂ + ε) comes from exp_avg_sq. Without it every parameter falls back "
        "to P = 1, which is a plain gradient step: δH₁ then has another direction and another scale.",
        "Save with save_only_model=False, or point at a checkpoint that holds optimizer.pt.",
        ("ls CHECKPOINT/optimizer.pt",),
        causes=("PEFT002", "PEFT001"),
        origin=(
            "The run saved with save_only_model=True, the file was left out of a copy, or no optimizer was "
            "handed over."
        ),
        by_hand="ls CHECKPOINT/optimizer.pt; len(optimizer.state).",
    ),
    Entry(
        "OPT002",
        "optimizer family",
        "the optimizer is not of Adam's family",
        "Adafactor, Muon, 8-bit and schedule-free states hold no exp_avg_sq to build P from, and "
        "nothing is substituted for it.",
        "Probe a run trained with AdamW; the weights can be probed without a preconditioner if you "
        "move optimizer.pt away.",
        origin="optim= in the training arguments. The state's keys say which optimizer wrote it.",
        by_hand="torch.load('optimizer.pt', weights_only=True)['state'][0].keys().",
    ),
    Entry(
        "OPT003",
        "state on parameters",
        "the optimizer state does not fit the parameters",
        "optimizer.pt knows parameters by index. Where count or shapes differ from those of the "
        "trainable parameters in the trainer's order, every v̂ would be laid on a wrong parameter.",
        "Use the optimizer.pt of this very checkpoint, with the same adapter configuration.",
        (),
        "https://github.com/huggingface/peft/issues/1313",
        origin=(
            "The file is of another checkpoint, or the adapter's configuration or the set of trainable "
            "parameters changed since."
        ),
        by_hand=(
            "Compare [s['exp_avg_sq'].shape for s in state.values()] with the shapes of the trainable "
            "parameters: decayed ones first, then biases and norms."
        ),
    ),
    Entry(
        "OPT004",
        "preconditioner",
        "some parameters have no state",
        "A parameter without state falls back to P = 1. Beside 1/√v̂ ≈ 1e4 elsewhere, 1 is not a scale: "
        "its share of every dot product vanishes.",
        "Build the optimizer after wrapping the model, and check that these parameters train.",
        causes=("PEFT004", "OPT009"),
        origin="The parameter never received a gradient, or the optimizer was built before it existed.",
        by_hand="[n for n, p in model.named_parameters() if p.requires_grad and p not in optimizer.state].",
    ),
    Entry(
        "OPT005",
        "exp_avg_sq",
        "exp_avg_sq is negative or not finite",
        "v is a running mean of squares: it can't be negative, and √v̂ of such a value is NaN.",
        "Take an earlier checkpoint.",
        origin="The file is corrupt, or the run had diverged.",
        by_hand="min(s['exp_avg_sq'].min() for s in state.values()).",
    ),
    Entry(
        "OPT006",
        "optimizer step",
        "step is 0, missing, or not the same for all parameters and the checkpoint",
        "v̂ = v/(1 − β₂^step) needs the step. At step 0 there is no v̂ at all; different steps mean "
        "different amounts of past in each v̂.",
        "Save the checkpoint after the first optimizer step.",
        origin=(
            "The checkpoint is from before the first step, or some parameters joined later or skipped "
            "updates."
        ),
        by_hand="{float(s['step']) for s in state.values()}.",
    ),
    Entry(
        "OPT007",
        "learning rate",
        "the learning rate is 0",
        "The next step is no step and δH₁ = 0, truly: nothing is wrong with the gradients.",
        "Say which learning rate to assume, or probe the previous checkpoint.",
        ("probe-tui CHECKPOINT --lr 1e-6",),
        origin=(
            "The group's lr in checkpoint K is that of step K+1, and the last checkpoint of a decaying "
            "schedule has lr 0."
        ),
        by_hand="torch.load('optimizer.pt', weights_only=True)['param_groups'][0]['lr'].",
    ),
    Entry(
        "OPT008",
        "state order",
        "states seem to lie on other parameters",
        "optimizer.pt numbers its states and names none. Where two parameters have the same shape, their "
        "states can change places and every count and shape still fits; then P is another parameter's and "
        "δH₁ is a number of no step. exp_avg_sq and the square of a fresh gradient both say which entries of "
        "a parameter have large gradients, so their ranks correlate where the order is right. This fires "
        "where another order among equal shapes correlates at least twice as well.",
        "Save names with the state (param_names in each group), or probe without it.",
        (
            "names = {id(p): n for n, p in model.named_parameters()}",
            "for g in optimizer.param_groups: g['param_names'] = [names[id(p)] for p in g['params']]",
        ),
        origin="The optimizer was built over another order of parameters than the Hugging Face Trainer's, "
        "which is that of its groups, each in named_parameters() order: own groups, a set of target modules, "
        "a library that sorts or renames.",
        by_hand="Load optimizer.pt and compare state[i]['exp_avg_sq'].flatten().argsort() with the same of a "
        "fresh gradient squared.",
    ),
    Entry(
        "OPT009",
        "parameter objects",
        "the optimizer holds other parameter objects than the model",
        "An optimizer steps the very objects that it was given. It keeps stepping some that no forward "
        "uses, and the model does not move.",
        "Build the optimizer after the last wrapping of the model.",
        (
            "trainable = [p for p in model.parameters() if p.requires_grad]",
            "optimizer = type(optimizer)(trainable, **optimizer.defaults)",
        ),
        origin="The model was wrapped, cast, merged or reloaded after the optimizer was built.",
        by_hand="Compare id(p) over optimizer.param_groups with id(p) over model.parameters().",
    ),
    Entry(
        "OPT010",
        "stale preconditioner",
        "the preconditioner is stale",
        "P comes from past gradients; the optimizer's next step uses a v̂ that includes the new one. "
        "Where v̂ is far below the fresh gradient², the frozen P throws the step onto a few coordinates "
        "that AdamW would move by one learning rate. Above a ratio ‖PȲ‖/‖P⁺Ȳ‖ of 4 the direction is "
        "doubtful, above 10 it is not the optimizer's.",
        "Probe a later checkpoint, or use more prompts, so that the gradient is not mostly noise.",
        origin="An early checkpoint, a batch much smaller than the trainer's, or gradients that have grown.",
        by_hand="Compare exp_avg_sq/(1 − β₂^step) with the square of a fresh gradient, by quantiles.",
    ),
    Entry(
        "OPT011",
        "trainer's loss",
        "the trainer's step has parts that the probe does not model",
        "The probe's Y is Σ A·κ·S. What else moves the weights is not in δH₁: the true step differs "
        "from the predicted one.",
        "Read δH₁ as the policy-gradient part of the step.",
        origin=(
            "A KL term (beta), an entropy bonus, several iterations on one batch, sequence-level ratios, "
            "masking of truncated completions, an importance correction for the sampler, active dropout, or "
            "different learning rates by group."
        ),
        by_hand="Read the training arguments; the message has names and values.",
    ),
    Entry(
        "OPT012",
        "optimizer's own step",
        "what the optimizer would do next is not known whole",
        "The `adamw` step is the optimizer's own: the batch's gradient is clipped to the trainer's "
        "max_grad_norm before Adam sees it. Without that number nothing is clipped here; where the trainer "
        "does clip, the gradient's share of the step comes out too large, momentum and weight decay as they "
        "are.",
        "Probe a checkpoint of the run: its training_args.bin holds max_grad_norm.",
        ("probe-tui CHECKPOINT",),
        causes=("OPT001", "OPT002", "OPT003", "OPT009"),
        origin="Live objects and checkpoints without training_args.bin do not say how gradients are clipped.",
        by_hand="Read max_grad_norm in the training script; transformers' default is 1.",
    ),
)

"""CKPT: can the checkpoint be read, and is it what it says?"""

from __future__ import annotations

from probe_engine.catalogue.entry import Entry

ENTRIES = (
    Entry(
        "CKPT001",
        "layout",
        "not a checkpoint that can be read",
        "A checkpoint is a folder with config.json and *.safetensors (full), a folder with "
        "adapter_config.json and adapter_model.safetensors (PEFT), or a torch.save file with a model "
        "state dict. None of these was found. FSDP, DeepSpeed, verl, OpenRLHF and prime-rl layouts "
        "are recognised by name but not read.",
        "Point at the checkpoint-N folder itself; consolidate sharded training states first.",
        ("ls CHECKPOINT", "probe-tui output/checkpoint-200"),
        origin=(
            "The path is that of the run instead of the checkpoint in it, of a sharded training state, or "
            "of a download that stopped before the weights."
        ),
        by_hand="ls the folder: is config.json or adapter_config.json there, and a *.safetensors beside it?",
    ),
    Entry(
        "CKPT002",
        "weight files",
        "weights missing, truncated or corrupt",
        "A safetensors file begins with a header that gives every tensor's place; the file's size must "
        "match it, and every shard of an index must exist. Weights that are not there can't be probed.",
        "Copy the checkpoint again, or take the previous one.",
        ("ls -l CHECKPOINT", "sha256sum CHECKPOINT/*.safetensors"),
        origin="A copy or a download stopped halfway, or the disk was full while saving.",
        by_hand=(
            'Compare the sizes with those of the source, or: python -c "from safetensors import safe_open; '
            "safe_open('model.safetensors', 'pt')\"."
        ),
    ),
    Entry(
        "CKPT003",
        "base model",
        "the adapter's base model was not found",
        "Without its base an adapter is no model. The probe never reaches for the network, so the base "
        "must be a folder here.",
        "Say where the base model lies.",
        ("probe-tui CHECKPOINT --base path/to/base",),
        origin=(
            "adapter_config.json names its base in base_model_name_or_path, often a path relative to where "
            "training ran, or a hub name."
        ),
        by_hand="grep base_model_name_or_path adapter_config.json",
    ),
    Entry(
        "CKPT004",
        "adapter on base",
        "the adapter does not fit the base model",
        "An adapter's matrices have the shapes of the layers that they adapt. Other shapes, or layers "
        "that the base does not have, mean that this is not the base that it was trained on.",
        "Pass the base that adapter_config.json names.",
        ("probe-tui CHECKPOINT --base path/to/base",),
        origin="A base of the same family and another size, or --base with the wrong folder.",
        by_hand=(
            "Compare the shapes in adapter_model.safetensors with hidden_size and num_hidden_layers in the "
            "base's config.json."
        ),
    ),
    Entry(
        "CKPT005",
        "weight keys",
        "keys missing or unexpected",
        "A missing key leaves a freshly initialised weight, and every number after it is about another "
        "model. Prefixes that wrappers add (module., _orig_mod., _fsdp_wrapped_module.) are stripped "
        "before keys are compared.",
        "Save the unwrapped model: accelerator.unwrap_model(model).save_pretrained(…).",
        (),
        "https://github.com/pytorch/pytorch/issues/94575",
        origin=(
            "The state dict of a wrapped model was saved by hand, of a model with more parts (a value "
            "head), or of another architecture."
        ),
        by_hand="missing, unexpected = model.load_state_dict(state, strict=False).",
    ),
    Entry(
        "CKPT006",
        "finite weights",
        "non-finite weights",
        "Log-probabilities and gradients that pass a NaN or an infinity are no numbers.",
        "Take an earlier checkpoint.",
        origin=(
            "The run had diverged when this checkpoint was written, or weights were cast to float16 and "
            "overflowed."
        ),
        by_hand="[n for n, p in model.named_parameters() if not p.isfinite().all()].",
    ),
    Entry(
        "CKPT007",
        "unpickling",
        "needs unpickling",
        "Pickled files can run any code when they are read. The probe reads tensors with "
        "weights_only=True and training_args.bin statically, without executing it. A file that needs "
        "more than that is refused.",
        "Only where you made the file yourself: allow it.",
        ("probe-tui CHECKPOINT --trust",),
        origin=(
            "training_args.bin, DCP .metadata and DeepSpeed states are pickles; so is a *.bin or *.pt that "
            "holds more than tensors."
        ),
        by_hand="python -m pickletools FILE shows what it would call, without calling it.",
    ),
    Entry(
        "CKPT008",
        "tokenizer",
        "tokenizer missing or larger than the embedding",
        "Rollouts that hold text need the tokenizer of the run. A tokenizer with more tokens than the "
        "embedding has rows belongs to another model, or the embedding was never resized.",
        "Copy the tokenizer's files beside the weights, or log token ids with the rollouts.",
        ("ls CHECKPOINT/tokenizer*",),
        origin=(
            "save_pretrained() of the model alone was called, the files were copied from another model, or "
            "tokens were added and the embedding was never resized."
        ),
        by_hand="len(tokenizer) beside model.get_input_embeddings().weight.shape[0].",
    ),
    Entry(
        "CKPT009",
        "number format",
        "quantised weights",
        "Some weights are no floating-point numbers, or have 8 bits or fewer. They have no gradient and "
        "can't take a step; gradient flows through them to the adapter. Everything that the probe says "
        "is then about the adapter alone, at the quantised base.",
        "Nothing, where an adapter trains on it; for full finetuning load the base in bfloat16 or float32.",
        origin="The base was loaded or saved by bitsandbytes, GPTQ, AWQ or in FP8.",
        by_hand="{p.dtype for p in model.parameters()}.",
    ),
)

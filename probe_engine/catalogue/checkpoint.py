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
    ),
    Entry(
        "CKPT002",
        "weight files",
        "weights missing, truncated or corrupt",
        "A safetensors file begins with a header that gives every tensor's place; the file's size must "
        "match it, and every shard of an index must exist. A copy that stopped halfway or a disk that "
        "was full while saving leaves files that fail this.",
        "Copy the checkpoint again, or take the previous one.",
        ("ls -l CHECKPOINT", "sha256sum CHECKPOINT/*.safetensors"),
    ),
    Entry(
        "CKPT003",
        "base model",
        "the adapter's base model was not found",
        "adapter_config.json names its base in base_model_name_or_path, often a relative path or a hub "
        "name. The probe never reaches for the network, so the base must be a folder here.",
        "Say where the base model lies.",
        ("probe-tui CHECKPOINT --base path/to/base",),
    ),
    Entry(
        "CKPT004",
        "adapter on base",
        "the adapter does not fit the base model",
        "An adapter's matrices have the shapes of the layers that they adapt. Other shapes, or layers "
        "that the base does not have, mean that this is not the base that the adapter was trained on.",
        "Pass the base that adapter_config.json names.",
        ("probe-tui CHECKPOINT --base path/to/base",),
    ),
    Entry(
        "CKPT005",
        "weight keys",
        "keys missing or unexpected",
        "After the prefixes that wrappers add (module., _orig_mod., _fsdp_wrapped_module.) are stripped, "
        "the file's keys must be the model's. A missing key leaves a freshly initialised weight, and "
        "every number after it is about another model.",
        "Save the unwrapped model: accelerator.unwrap_model(model).save_pretrained(…).",
        (),
        "https://github.com/pytorch/pytorch/issues/94575",
    ),
    Entry(
        "CKPT006",
        "finite weights",
        "non-finite weights",
        "A weight is NaN or infinite: the run had diverged when this checkpoint was written.",
        "Take an earlier checkpoint.",
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
    ),
    Entry(
        "CKPT008",
        "tokenizer",
        "tokenizer missing or larger than the embedding",
        "Rollouts that hold text need the tokenizer of the run. A tokenizer with more tokens than the "
        "embedding has rows belongs to another model, or the embedding was never resized.",
        "Copy the tokenizer's files beside the weights, or log token ids with the rollouts.",
        ("ls CHECKPOINT/tokenizer*",),
    ),
    Entry(
        "CKPT009",
        "number format",
        "quantised weights",
        "Some weights are no floating-point numbers, or have 8 bits or fewer: a quantised base, as "
        "bitsandbytes, GPTQ or AWQ make it. Such weights have no gradient and can't take a step; gradient "
        "flows through them to the adapter. Everything that the probe says is then about the adapter alone, "
        "at the quantised base.",
        "Nothing, where an adapter trains on it; for full finetuning load the base in bfloat16 or float32.",
    ),
)

"""PEFT: is the adapter what trains?"""

from __future__ import annotations

from probe_engine.catalogue.entry import Entry

ENTRIES = (
    Entry(
        "PEFT001",
        "adapter trainable",
        "the adapter is frozen",
        "The model has an adapter and nothing in it requires a gradient: the loss has no graph, and an "
        "optimizer that was built from what requires a gradient holds nothing.",
        "Load the adapter with is_trainable=True, and build the optimizer after that.",
        ("PeftModel.from_pretrained(base, path, is_trainable=True)",),
        "https://github.com/huggingface/peft/issues/1340",
        origin=(
            "PeftModel.from_pretrained freezes what it loads unless it is told otherwise, and saved "
            "configurations always say inference_mode: true. model.requires_grad_(False) after wrapping "
            "does the same."
        ),
        by_hand="[n for n, p in model.named_parameters() if p.requires_grad] is empty.",
    ),
    Entry(
        "PEFT002",
        "adapter enabled",
        "the adapter is disabled or none is active",
        "The forward passes the adapter by. What is scored is the base model, and the adapter gets no "
        "gradient; disabling also takes requires_grad from its parameters.",
        "Leave disable_adapter() before the call; else enable the layers and set the adapter by its name.",
        ("model.base_model.enable_adapter_layers()", "model.set_adapter('default')"),
        "https://github.com/huggingface/peft/issues/1571",
        origin=(
            "`with model.disable_adapter()`, as for reference log-probabilities, is around the call; "
            "disable_adapter_layers() was never undone; or the active adapter's name is one that the layers "
            "don't have."
        ),
        by_hand=(
            "{m.disable_adapters for m in model.modules() if hasattr(m, 'disable_adapters')}, and "
            "model.active_adapters beside model.peft_config."
        ),
    ),
    Entry(
        "PEFT003",
        "adapter apart",
        "the adapter is merged into the base",
        "The base weight holds W + BA, and the forward uses that sum alone: A and B are on no path to "
        "the loss, so their gradients are None although they require them.",
        "Unmerge before training and probing, or load the adapter again.",
        ("model.unmerge_adapter()",),
        origin=(
            "merge_adapter() was called and not undone. Engines that sample between training steps merge, "
            "and must unmerge."
        ),
        by_hand=(
            "[m.merged_adapters for m in model.modules() if getattr(m, 'merged_adapters', None)] is not "
            "empty."
        ),
    ),
    Entry(
        "PEFT004",
        "active adapter",
        "the trainable adapter is not the active one",
        "The forward uses the active adapters; the parameters that require a gradient belong to "
        "another, which the loss never sees.",
        "Set the adapter that is to be trained active.",
        ("model.set_adapter('NAME')",),
        "https://github.com/huggingface/peft/issues/3580",
        origin=(
            "A second adapter was loaded or added beside the one that trains, or requires_grad was set by "
            "hand."
        ),
        by_hand=(
            "Compare model.active_adapters with the adapter names in [n for n, p in "
            "model.named_parameters() if p.requires_grad]."
        ),
    ),
    Entry(
        "PEFT005",
        "weight tying",
        "modules_to_save untied the head from the embedding",
        "The configuration says that the output head and the input embedding are one weight. There are "
        "two from here on and only the copy trains; merging or exporting with tied weights would drop "
        "one of them.",
        "If one weight is meant, keep the tie when the adapter is made.",
        ("LoraConfig(…, modules_to_save=['embed_tokens'], ensure_weight_tying=True)",),
        "https://github.com/huggingface/peft/issues/2777",
        origin="modules_to_save made a copy of the head or of the embedding.",
        by_hand=(
            "model.get_input_embeddings().weight.data_ptr() and "
            "model.get_output_embeddings().weight.data_ptr() differ, config.tie_word_embeddings is True."
        ),
    ),
    Entry(
        "PEFT006",
        "trained adapter",
        "every LoRA B is 0",
        "BA = 0, so that the model is the base model. The gradient of A is Bᵀ times something, hence "
        "exactly 0; that of B is not.",
        "Nothing at step 0; later, check that the adapter's weights were loaded.",
        origin=(
            "A fresh adapter: true of step 0, and of nothing after it. Later it would mean that nothing was "
            "trained, or that the adapter's weights were not loaded."
        ),
        by_hand="all(not p.any() for n, p in model.named_parameters() if 'lora_B' in n).",
    ),
    Entry(
        "PEFT007",
        "trainable parameters",
        "parameters trainable that the adapter's configuration did not name",
        "They train and they count in X and Y, but save_pretrained() of the adapter leaves them out: "
        "the saved checkpoint is another model than the one that was trained.",
        "Freeze them, or name their modules in modules_to_save.",
        ("LoraConfig(…, modules_to_save=['lm_head'])",),
        "https://github.com/huggingface/peft/issues/2759",
        origin=(
            "Parameters of the base were unfrozen after wrapping, or a new module was added that no "
            "configuration names."
        ),
        by_hand=(
            "[n for n, p in model.named_parameters() if p.requires_grad and 'lora_' not in n and "
            "'modules_to_save' not in n]."
        ),
    ),
)

"""PEFT: is the adapter what trains?"""

from __future__ import annotations

from probe_engine.catalogue.entry import Entry

ENTRIES = (
    Entry(
        "PEFT001",
        "adapter trainable",
        "the adapter is frozen",
        "The model has an adapter and nothing in it requires a gradient. PeftModel.from_pretrained freezes "
        "what it loads unless it is told otherwise, and saved configurations always say inference_mode. The "
        "optimizer then gets an empty list, or the loss has no graph. By hand: "
        "[n for n, p in model.named_parameters() if p.requires_grad] is empty.",
        "Load the adapter with is_trainable=True, and build the optimizer after that.",
        ("PeftModel.from_pretrained(base, path, is_trainable=True)",),
        "https://github.com/huggingface/peft/issues/1340",
    ),
    Entry(
        "PEFT002",
        "adapter enabled",
        "the adapter is disabled or none is active",
        "The forward passes the adapter by: `with model.disable_adapter()` (as for reference "
        "log-probabilities) is around the call, disable_adapter_layers() was never undone, or the active "
        "adapter's name is one that the layers don't have. What is scored is the base model, and the adapter "
        "gets no gradient. Disabling also takes requires_grad from the adapter's parameters.",
        "Leave disable_adapter() before the call; else enable the layers and set the adapter by its name.",
        ("model.base_model.enable_adapter_layers()", "model.set_adapter('default')"),
        "https://github.com/huggingface/peft/issues/1571",
    ),
    Entry(
        "PEFT003",
        "adapter apart",
        "the adapter is merged into the base",
        "After merge_adapter() the base weight holds W + BA, and the forward uses that sum alone: A and B "
        "are on no path to the loss, so their gradients are None although they require them. Engines that "
        "sample between training steps merge and must unmerge.",
        "Unmerge before training and probing, or load the adapter again.",
        ("model.unmerge_adapter()",),
    ),
    Entry(
        "PEFT004",
        "active adapter",
        "the trainable adapter is not the active one",
        "Several adapters are on the model. The forward uses the active ones; the parameters that require a "
        "gradient belong to another, which the loss never sees. Loading a second adapter, or setting "
        "requires_grad by hand, leads here.",
        "Set the adapter that is to be trained active.",
        ("model.set_adapter('NAME')",),
        "https://github.com/huggingface/peft/issues/3580",
    ),
    Entry(
        "PEFT005",
        "weight tying",
        "modules_to_save untied the head from the embedding",
        "The configuration says that the output head and the input embedding are one weight. modules_to_save "
        "made a copy of one of them, and only the copy trains: two weights from here on. Merging or "
        "exporting with tied weights would drop one of the two.",
        "If one weight is meant, keep the tie when the adapter is made.",
        ("LoraConfig(…, modules_to_save=['embed_tokens'], ensure_weight_tying=True)",),
        "https://github.com/huggingface/peft/issues/2777",
    ),
    Entry(
        "PEFT006",
        "trained adapter",
        "every LoRA B is 0",
        "A fresh adapter has B = 0, so that BA = 0 and the model is the base model. The gradient of A is "
        "Bᵀ times something, hence exactly 0; that of B is not. True of step 0, and of nothing after it: "
        "later it would mean that nothing was trained or the adapter's weights were not loaded.",
        "Nothing at step 0; later, check that the adapter's weights were loaded.",
    ),
    Entry(
        "PEFT007",
        "trainable parameters",
        "parameters trainable that the adapter's configuration did not name",
        "Parameters of the base model require a gradient beside the adapter's. They train and they count in "
        "X and Y, but save_pretrained() of the adapter leaves them out: the saved checkpoint is then another "
        "model than the one that was trained.",
        "Freeze them, or name their modules in modules_to_save.",
        ("LoraConfig(…, modules_to_save=['lm_head'])",),
        "https://github.com/huggingface/peft/issues/2759",
    ),
)

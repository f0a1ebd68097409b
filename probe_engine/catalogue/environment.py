"""ENV: does this installation compute what is asked for, and does it fit?"""

from __future__ import annotations

from probe_engine.catalogue.entry import Entry

ENTRIES = (
    Entry(
        "ENV001",
        "library versions",
        "a library is too old, or two do not fit each other",
        "torch, transformers and peft are each in the range that this package, transformers and peft ask "
        "for in their own metadata, or they are not. Outside it functions are missing or mean something "
        "else: an old transformers takes no dtype= and loads the weights in another format than was asked "
        "for. What fails afterwards then names another cause.",
        "Install versions that fit each other.",
        ("pip install -U torch transformers peft", "pip check"),
        origin="One of them was installed or held back by hand, or another package pulled an older one.",
        by_hand="pip check; python -c 'from importlib.metadata import requires; print(requires(\"peft\"))'",
    ),
    Entry(
        "ENV002",
        "device and dtype",
        "the device is not there, or does not compute in the dtype",
        "Two small matrices are multiplied on the device, in the dtype of the model, and the product is "
        "differentiated. Where that raises or comes out wrong, no forward and no reverse pass of a model "
        "can run there.",
        "Choose a device and a dtype that work together.",
        ("probe-tui CHECKPOINT --device cpu", "probe-tui CHECKPOINT --dtype float32"),
        causes=("ENV001",),
        origin="torch was installed without support for the device (the CPU build beside a GPU), the driver "
        "is too old for it, CUDA_VISIBLE_DEVICES hides it, or the format is not one that it computes in "
        "(float64 on Apple's GPUs).",
        by_hand='python -c \'import torch; a = torch.ones(4, 4, device="cuda", dtype=torch.bfloat16, '
        "requires_grad=True); (a @ a).sum().backward()'",
    ),
    Entry(
        "ENV003",
        "double backward",
        "the attention can't be differentiated twice",
        "The methods alpha and alpha-vjp differentiate the gradient once more. Fused attention kernels "
        "(flash, memory-efficient, flex) have no derivative of their reverse pass. The probe asks torch for "
        "the mathematical form of scaled-dot-product attention, which has one; attention that chooses its "
        "kernel itself does not listen. Only these two methods need it.",
        "Take the default method, or load the model with eager or SDPA attention.",
        (
            "probe-tui CHECKPOINT --method loop",
            "AutoModelForCausalLM.from_pretrained(path, attn_implementation='eager')",
        ),
        "https://github.com/pytorch/pytorch/issues/116350",
        causes=("ENV001",),
        origin="attn_implementation is flash_attention_2, flex_attention or a registered function of one's "
        "own, or a module pins a kernel with torch.nn.attention.sdpa_kernel around its call.",
        by_hand="g, = torch.autograd.grad(loss, p, create_graph=True); g.square().sum().backward()",
    ),
    Entry(
        "ENV004",
        "memory",
        "there is not enough memory",
        "What the run will take is estimated before anything is loaded: weights by the headers of their "
        "files, the optimizer's state, gradients and their sums, kept unit vectors, and what a micro-batch "
        "saves for its reverse pass. As a warning: the sum is more than is free, and the run will probably "
        "end in the middle. As a failure: the weights alone are more than is free, and nothing was loaded.",
        "Fewer sequences a pass, less memory for kept vectors, or a narrower dtype.",
        ("probe-tui CHECKPOINT --micro-batch 1 --memory-budget 0 --dtype bfloat16",),
        origin="A large model, long sequences or a large vocabulary; other programs on the same device; a "
        "container's or job's limit below the machine's memory.",
        by_hand="free -h; nvidia-smi; cat /sys/fs/cgroup/memory.max; ls -l CHECKPOINT",
    ),
)

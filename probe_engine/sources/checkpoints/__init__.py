"""Reading checkpoints: layouts, weights, adapters, tokenizers, Adam states, trainer arguments."""

"""The self-test: every fault of the catalogue, injected on a tiny model, must be named and no other."""

"""The front doors: command line, plain text, JSON. They read the engine's stream and compute nothing."""

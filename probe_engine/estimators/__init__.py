"""Pure mathematics: tensors in, tensors or frozen results out. No model, no file, no rank."""

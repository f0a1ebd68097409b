"""The only code that touches nn.Module, autograd or ranks."""

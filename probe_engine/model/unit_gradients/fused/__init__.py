"""`fused`: X_u and Y_u of every unit of a window from one forward and one reverse pass (method.md §5).
X of (2b) takes one reverse pass more over the same graph, beside the first.

Sequences do not mix, so cotangent 1 on every S[n] brings δ[n] = ∂S[n]/∂(output) to every layer, and for a
linear one ∇_W S[n] = Σ_t δ xᵀ. X_u and Y_u are sums of the same products with other weights. X of (2b) is the
same with the sums Σ_t [ h_t + W_t·log π_t ] in place of S, whose weights W differ by token.

packing  which sequences share a pass, in one row or each in its own
trial    whether the model may be given several in one row
slots    which part of a tensor is which sequence's
places   where parameters are in the model, and which layers have a rule
tape     a forward pass with the layers' inputs, and what autograd's graph says of each parameter's uses
segments where that graph can be cut, so that several reverse passes go back side by side
rules    gradients of a layer's parameters from x and δ
reverse  the reverse passes; what no rule gives, from the nearest module around it, by autograd
method   the two passes over all units
"""

from probe_engine.model.unit_gradients.fused.method import Fused

__all__ = ["Fused"]

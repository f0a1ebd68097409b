"""Graphs of a few operations, cut where every path goes through."""

import torch
from torch.autograd.graph import get_gradient_edge

from probe_engine.model.unit_gradients.fused.segments import segments


def leaf() -> torch.Tensor:
    return torch.tensor([0.3, 0.7], requires_grad=True)


def edges(*tensors: torch.Tensor):
    return [get_gradient_edge(t) for t in tensors]


def ends(root, places, watched=()):
    found = segments(root.grad_fn, edges(*places), {e.node for e in edges(*watched)})
    assert found[-1].end is None
    return [s.end for s in found[:-1]]


def test_a_chain_is_cut_at_every_place_and_its_pieces_multiply_to_the_whole():
    x = leaf()
    a = x.sin()
    b = a + a.exp()  # a residual stream
    c = b + b.cos()
    root = c.square().sum()
    assert ends(root, [a, b, c]) == edges(c, b, a)
    end, delta = get_gradient_edge(root), torch.tensor(1.0)
    for segment in segments(root.grad_fn, edges(a, b, c), set()):
        to = segment.end or get_gradient_edge(x)
        (delta,) = torch.autograd.grad([end], [to], [delta], retain_graph=True)
        end = to
    assert torch.equal(delta, torch.autograd.grad(root, x)[0])


def test_pieces_share_no_node_that_is_not_a_parameters():
    x, w = leaf(), leaf()
    a = (x * w).sin()
    b = (a * w).cos()
    first, second = segments((b * w).sum().grad_fn, edges(a), {get_gradient_edge(x).node})
    assert first.nodes & second.nodes == {get_gradient_edge(w).node}
    assert get_gradient_edge(x).node in second.nodes
    assert get_gradient_edge(a).node in second.nodes


def test_what_a_path_goes_around_is_no_cut():
    """A later layer that is given what an earlier one was given, too."""
    x = leaf()
    a = x.sin()
    b = a.cos()
    c = b + a
    d = c.exp()
    assert ends(d.sum(), [a, b, c, d], [x]) == edges(d, c, a)
    # Whatever the order in which the ways are walked, and however often one operation is reached.
    assert ends((c * c.square().mean().rsqrt()).sum(), [a, b], [x]) == edges(a)


def test_what_is_reached_from_two_pieces_leaves_the_graph_whole():
    """A bias that every layer adds: its δ would come piece by piece. The same of embeddings that two take."""
    x, table = leaf(), leaf()
    bias = table.exp()
    a = x.sin() + bias
    b = a.cos() + bias
    assert ends(b.sum(), [a, b], [x]) == edges(b, a)
    assert ends(b.sum(), [a, b], [x, bias]) == []
    (whole,) = segments(b.sum().grad_fn, edges(a, b), {e.node for e in edges(x, bias)})
    assert {e.node for e in edges(x, table, bias, a, b)} <= whole.nodes
    assert ends((b.exp() + x).sum(), [a, b], [x]) == []


def test_what_is_watched_is_no_cut():
    x = leaf()
    a = x.sin()
    b = a.cos()
    assert ends(b.exp().sum(), [a, b], [x, b]) == edges(a)


def test_one_of_several_outputs_is_no_cut():
    x = leaf()
    one, other = x.sin().split(1)
    root = (one * other).sum()
    assert ends(root, [one]) == []
    assert ends((other * 2).sum(), [other]) == edges(other)


def test_a_place_that_the_root_does_not_depend_on_is_no_cut():
    x = leaf()
    a, aside = x.sin(), x.cos()
    assert ends(a.sum(), [a, aside]) == edges(a)

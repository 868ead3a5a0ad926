"""Blocks, stacks and directions: any split gives one result, padding never leaks."""

import pytest
import torch

from melstate.mixers.block import GLU, Bidirectional, Block, ChunkBackward, Stack, Sum, build, reverse
from melstate.mixers.mixer import create

torch.set_num_threads(1)


def stack(**options):
    torch.manual_seed(0)
    return build(12, 2, heads=2, key_dim=3, value_dim=5, **options).double()


@pytest.mark.parametrize("residual", ["pre", "rezero"])
@pytest.mark.parametrize("mixer", ["gla", "rg_lru"])
def test_a_stack_streams_exactly(residual, mixer):
    torch.manual_seed(0)
    net = build(12, 2, mixer, heads=2, conv=3, hidden=16, residual=residual).double()
    if residual == "rezero":
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(3, 41, 12, dtype=torch.float64)
    whole, end = net(x)
    state, parts = None, []
    for part in x.split([1, 1, 7, 32], dim=1):
        y, state = net(part, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-11)
    torch.testing.assert_close(state.layers[0].mixer[0], end.layers[0].mixer[0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("splits", [[41], [1] * 41, [8, 8, 8, 8, 9], [3, 20, 0, 18], [16, 25]])
def test_chunk_backward_streams_exactly(splits):
    net = stack(direction="chunk", chunk=8, conv=3)
    x = torch.randn(2, 41, 12, dtype=torch.float64)
    whole, _ = net(x)
    assert whole.shape == x.shape
    state, parts = None, []
    for index, part in enumerate(x.split(splits, dim=1)):
        y, state = net(part, state, final=index == len(splits) - 1)
        if index < len(splits) - 1:
            assert y.shape[1] % 8 == 0
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-11)


def test_chunk_backward_sees_to_its_chunks_end_and_no_further():
    layer = ChunkBackward(create("gla", 12, heads=2), 8).double()
    x = torch.randn(1, 24, 12, dtype=torch.float64, requires_grad=True)
    y, _ = layer(x)
    (reach,) = torch.autograd.grad(y[0, 10].sum(), x)
    seen = reach[0].abs().sum(-1) > 0
    assert seen.nonzero().flatten().tolist() == list(range(10, 16))


def test_chunk_backward_refuses_to_go_on_inside_a_chunk():
    layer = ChunkBackward(create("gla", 12, heads=2), 8)
    _, state = layer(torch.randn(1, 11, 12))
    with pytest.raises(ValueError, match="3 frames into a chunk of 8"):
        layer(torch.randn(1, 8, 12), state)


@pytest.mark.parametrize("direction", ["both", "chunk"])
def test_padding_never_leaks(direction):
    net = stack(direction=direction, chunk=8 if direction == "chunk" else None, conv=3)
    x = torch.randn(3, 21, 12, dtype=torch.float64)
    lengths = torch.tensor([21, 13, 1])
    other = torch.where(torch.arange(21)[None, :, None] < lengths[:, None, None], x, 1e3)
    y, z = net(x, lengths=lengths)[0], net(other, lengths=lengths)[0]
    for row, length in enumerate(lengths):
        torch.testing.assert_close(y[row, :length], z[row, :length], rtol=0, atol=0)
        alone, _ = net(x[row : row + 1, :length])
        torch.testing.assert_close(y[row, :length], alone[0], rtol=0, atol=1e-11)


def test_bidirectional_sees_everything_and_reverse_is_its_own_inverse():
    layer = Bidirectional(create("gla", 12, heads=2), create("gla", 12, heads=2)).double()
    x = torch.randn(1, 9, 12, dtype=torch.float64, requires_grad=True)
    (reach,) = torch.autograd.grad(layer(x)[0][0, 4].sum(), x)
    assert (reach.abs().sum(-1) > 0).all()
    lengths = torch.tensor([5, 0, 9])
    frames = torch.arange(27.0).reshape(3, 9, 1)
    assert reverse(frames, lengths)[0, :, 0].tolist() == [4, 3, 2, 1, 0, 5, 6, 7, 8]
    assert torch.equal(reverse(reverse(frames, lengths), lengths), frames)


def test_rezero_starts_as_the_identity():
    net = build(12, 3, residual="rezero", norm=False, heads=2)
    x = torch.randn(2, 5, 12)
    assert torch.equal(net(x)[0], x)


def test_blocks_refuse_what_cannot_work():
    gla = create("gla", 12, heads=2)
    with pytest.raises(ValueError, match="'post'"):
        Block(gla, residual="post")
    with pytest.raises(ValueError, match=r"\[12, 8\]"):
        Stack([gla, create("gla", 8, heads=2)])
    with pytest.raises(ValueError, match=r"chunk=4 .* \[8\]"):
        Stack([ChunkBackward(gla, 8)], chunk=4)
    with pytest.raises(ValueError, match="12 and 8"):
        Bidirectional(gla, create("gla", 8, heads=2))
    with pytest.raises(ValueError, match="one width"):
        Sum([])
    with pytest.raises(ValueError, match="chunk"):
        build(12, 1, direction="both", chunk=8)
    with pytest.raises(ValueError, match="'sideways'"):
        build(12, 1, direction="sideways")
    with pytest.raises(ValueError, match="final=True"):
        stack(direction="chunk", chunk=8)(torch.randn(1, 9, 12).double(), lengths=torch.tensor([3]), final=False)
    with pytest.raises(ValueError, match="not one of"):
        create("mamba", 12)
    with pytest.raises(ValueError, match="tempo"):
        create("gla", 12, tempo=3)


def test_glu_counts_as_many_weights_as_a_plain_one():
    assert abs(sum(p.numel() for p in GLU(96).parameters() if p.dim() > 1) / (8 * 96 * 96) - 1) < 0.05

"""Every mixer: any split of the sequence gives one result, padding never leaks, the step compiles and exports."""

import itertools

import pytest
import torch

from melstate.mixers.mixer import create, names

torch.set_num_threads(1)
DIM, TIME = 12, 70
OPTIONS = {
    "gla": {"heads": 2, "key_dim": 5, "value_dim": 7, "gate_normalizer": 1.0},
    "fast_weights": {"heads": 2, "key_dim": 5, "value_dim": 7},
    "rg_lru": {"heads": 2, "width": 10},
    "hgrn2": {"heads": 2, "key_dim": 5, "lower_bound": 0.2},
    "gate_loop": {"width": 9},
    "rwkv6": {"heads": 2, "mix_rank": 3, "decay_rank": 3},
    "lstm": {"width": 7},
    "gru": {},
    "attention": {"heads": 2},
    "window_attention": {"heads": 2, "window": 9},
    "short_conv": {"bias": True},
}
RECURRENT = [name for name in OPTIONS if name in ("gla", "fast_weights", "rg_lru", "hgrn2", "gate_loop", "rwkv6")]


def test_every_registered_mixer_is_tested():
    assert set(names()) == set(OPTIONS)


def mixer(name, dtype=torch.float64, **options):
    torch.manual_seed(0)
    made = create(name, DIM, **(OPTIONS[name] | options)).to(dtype)
    with torch.no_grad():
        for parameter in made.parameters():  # away from structured starts, gates at all levels
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def tensors(state):
    return [state] if isinstance(state, torch.Tensor) else [x for part in state for x in tensors(part)]


def run(made, x, splits):
    state, parts = None, []
    for start, end in itertools.pairwise(splits):
        y, state = made(x[:, start:end], state)
        parts.append(y)
    return torch.cat(parts, 1), state


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_any_split_gives_the_same_output_and_state(name, dtype, tolerance):
    made = mixer(name, dtype)
    x = torch.randn(2, TIME, DIM, dtype=torch.float64).to(dtype)
    whole, end = made(x)
    assert whole.shape == x.shape and whole.dtype == dtype
    for splits in ([*range(TIME + 1)], [0, 1, 10, 11, 40, TIME], [0, 0, 33, 33, TIME], [0, TIME - 1, TIME]):
        y, state = run(made, x, splits)
        assert float((y - whole).abs().max()) <= tolerance * float(whole.abs().max())
        assert type(state) is type(end)
        for found, wanted in zip(tensors(state), tensors(end), strict=True):
            assert found.shape == wanted.shape and found.dtype == wanted.dtype
            assert float((found - wanted).abs().max()) <= tolerance * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("name", OPTIONS)
def test_causal_and_batch_rows_are_independent(name):
    made = mixer(name)
    x = torch.randn(2, 20, DIM, dtype=torch.float64, requires_grad=True)
    y, _ = made(x)
    (reach,) = torch.autograd.grad(y[0, 11].sum(), x)
    seen = reach.abs().sum(-1) > 0
    assert not seen[1].any() and not seen[0, 12:].any() and seen[0, 11]
    assert seen[0, :11].any()


@pytest.mark.parametrize("name", OPTIONS)
def test_padding_never_leaks(name):
    made = mixer(name)
    lengths = torch.tensor([30, 0, 1, 17])
    x, more = (torch.randn(4, n, DIM, dtype=torch.float64) for n in (30, 6))
    padding = torch.arange(30)[None, :, None] >= lengths[:, None, None]
    start = made(torch.randn(4, 5, DIM, dtype=torch.float64))[1]
    y, state = made(x.masked_fill(padding, 1e3), start, lengths=lengths)
    z, other = made(x.masked_fill(padding, -7.0), start, lengths=lengths)
    assert torch.isfinite(y).all()
    for found, wanted in zip(tensors(state), tensors(other), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    after, _ = made(more, state)
    for row, length in enumerate(lengths):
        one = slice(row, row + 1)
        own = type(start)(*(part[one] for part in start)) if isinstance(start, tuple) else start[one]
        alone, own = made(x[row : row + 1, :length], own)
        torch.testing.assert_close(y[row, :length], z[row, :length], rtol=0, atol=0)
        torch.testing.assert_close(y[row, :length], alone[0], rtol=0, atol=1e-10)
        torch.testing.assert_close(after[row], made(more[row : row + 1], own)[0][0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_state_given_is_not_modified(name):
    made = mixer(name)
    _, state = made(torch.randn(2, 5, DIM, dtype=torch.float64))
    before = [x.clone() for x in tensors(state)]
    for time in (1, 4):
        made(torch.randn(2, time, DIM, dtype=torch.float64), state)
    assert all(torch.equal(x, y) for x, y in zip(tensors(state), before, strict=True))


@pytest.mark.parametrize("name", OPTIONS)
def test_state_bytes_tell_the_size(name):
    made = mixer(name, torch.float32)
    for time in (1, 50):
        _, state = made(torch.randn(3, time, DIM))
        size = sum(x.numel() * x.element_size() for x in tensors(state))
        assert (size == made.state_bytes(3)) == made.constant_state
    assert made.constant_state == (name != "attention")


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_every_gradient_equals_that_of_the_definition(name, dtype, tolerance):
    chunked, reference = mixer(name, dtype, backend="chunked"), mixer(name, torch.float64, backend="reference")
    reference.load_state_dict(chunked.state_dict())
    x, dy = (torch.randn(2, 40, DIM, dtype=torch.float64).to(dtype) for _ in range(2))
    grads = []
    for made in (reference, chunked):
        like = next(made.parameters())
        leaf = x.to(like.dtype).requires_grad_()
        state = type(made.init_state(2))(*((s + 0.5).requires_grad_() for s in made.init_state(2)))
        y, after = made(leaf, state)
        ((y * dy.to(y.dtype)).sum() + sum(s.sum() for s in after)).backward()
        named = {"x": leaf.grad, **{f"state {n}": s.grad for n, s in state._asdict().items()}}
        grads.append(named | {n: p.grad for n, p in made.named_parameters()})
    for key, wanted in grads[0].items():
        error = (grads[1][key].double() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
        assert error < tolerance, key


@pytest.mark.parametrize("name", OPTIONS)
def test_autocast_trains_and_stays_close(name):
    made = mixer(name, torch.float32)
    x, lengths = torch.randn(2, 12, DIM), torch.tensor([12, 7])
    wanted, _ = made(x, lengths=lengths)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = made(x, lengths=lengths)
        more, _ = made(x[:, :1], state)
        (y.float().square().mean() + more.float().square().mean()).backward()
    assert float((y.float() - wanted)[1, :7].norm() / wanted[1, :7].norm()) < 0.05
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in made.parameters())


@pytest.mark.parametrize("name", OPTIONS)
def test_the_step_exports(name):
    made = mixer(name, torch.float32).eval()
    x = torch.randn(2, 6, DIM)
    _, state = made(x[:, :5])
    program = torch.export.export(made, (x[:, 5:], state))
    found, wanted = program.module()(x[:, 5:], state), made(x[:, 5:], state)
    for a, b in zip(tensors(found), tensors(wanted), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_step_compiles_as_one_graph(name):
    made = mixer(name, torch.float32).eval()
    x = torch.randn(2, 6, DIM)
    _, state = made(x[:, :5])
    compiled = torch.compile(made, fullgraph=True, backend="eager")
    for a, b in zip(tensors(compiled(x[:, 5:], state)), tensors(made(x[:, 5:], state)), strict=True):
        torch.testing.assert_close(a, b)


def test_published_lstm_and_gru_weights_fit():
    for name, torch_class in (("lstm", torch.nn.LSTM), ("gru", torch.nn.GRU)):
        theirs = torch_class(DIM, DIM, batch_first=True)
        ours = create(name, DIM)
        ours.rnn.load_state_dict(theirs.state_dict())
        x = torch.randn(2, 9, DIM)
        torch.testing.assert_close(run(ours, x, [*range(10)])[0], theirs(x)[0])


def test_mixers_refuse_what_cannot_work():
    for name, options, match in (
        ("gla", {"heads": 0}, "heads"),
        ("fast_weights", {"memory": 1.0}, "memory"),
        ("rg_lru", {"heads": 5}, "multiple of heads 5"),
        ("hgrn2", {"lower_bound": 1.0}, "lower_bound"),
        ("rwkv6", {"heads": 5}, "multiple of heads 5"),
        ("attention", {"heads": 4, "base": 1e4, "window": 3}, "window"),
        ("attention", {"heads": 5}, "rotary"),
        ("window_attention", {"heads": 2, "window": 0}, "window must be"),
        ("short_conv", {"width": 1}, "width must be"),
    ):
        with pytest.raises(ValueError, match=match):
            create(name, DIM, **options)
    with pytest.raises(ValueError, match=r"0\.\.4"):
        create("lstm", DIM)(torch.randn(1, 4, DIM), lengths=torch.tensor([5]))

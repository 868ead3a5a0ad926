"""Tiled Gaussian emissions against torch.distributions on everything at once."""

import pytest
import torch

from melstate.kernels.emission import emissions, gaussian
from melstate.kernels.hmm import hmm_log_likelihood, readable

FRAMES, STATES = torch.tensor([7, 5]), torch.tensor([3, 5])
NAMES = ("by_frame", "by_state", "weight", "bias", "observed")


def draw(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 7, 6), (2, 5, 6), (9, 6), (9,), (2, 7, 4)
    return [torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def at_once(by_frame, by_state, weight, bias, observed, floor=0.5):
    hidden = torch.relu(by_frame[:, :, None] + by_state[:, None])
    mean, std, transition = gaussian(hidden @ weight.T + bias, floor)
    emission = torch.distributions.Normal(mean, std).log_prob(observed[:, :, None]).sum(-1)
    outside = ~readable(FRAMES, STATES, 7, 5)
    return emission.masked_fill(outside, 0.0), transition.masked_fill(outside, 0.0)


@pytest.mark.parametrize("tile", [1, 4, 7, 100])
def test_tiles_equal_everything_at_once(tile):
    operands = draw()
    wanted = at_once(*operands)
    found = emissions(*operands, FRAMES, STATES, floor=0.5, tile=tile, cutoff=0.0)
    seeds = [torch.randn_like(x) for x in wanted]
    gradients = [torch.autograd.grad(outputs, operands, seeds) for outputs in (found, wanted)]
    for mine, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, right, rtol=0, atol=1e-12)
    for name, mine, right in zip(NAMES, *gradients, strict=True):
        torch.testing.assert_close(mine, right, rtol=0, atol=1e-11, msg=name)


def test_gradients_are_those_of_finite_differences():
    def function(*operands):
        emission, transition = emissions(*operands, FRAMES, STATES, floor=0.01, tile=4, cutoff=0.0)
        return hmm_log_likelihood(emission, transition, FRAMES, STATES)

    assert torch.autograd.gradcheck(function, draw())


def test_what_the_cutoff_leaves_out_does_not_matter():
    results = []
    for cutoff in (0.0, 1e-6):
        operands = draw()
        emission, transition = emissions(*operands, FRAMES, STATES, cutoff=cutoff)
        results.append(torch.autograd.grad(hmm_log_likelihood(emission, transition, FRAMES, STATES).sum(), operands))
    for name, mine, right in zip(NAMES, *results, strict=True):
        assert float((mine - right).norm() / right.norm()) < 1e-4, name


def test_autocast_leaves_densities_in_float32():
    operands = draw(torch.float32)
    plain = emissions(*operands, FRAMES, STATES)
    with torch.autocast("cpu", torch.bfloat16):
        cast = emissions(*operands, FRAMES, STATES)
        gradient = torch.autograd.grad(cast[0].sum(), operands[0])[0]
    assert cast[0].dtype == torch.float32 and torch.equal(plain[0], cast[0]) and gradient.dtype == torch.float32


def test_wrong_shapes_are_refused():
    by_frame, by_state, weight, bias, observed = draw()
    with pytest.raises(ValueError, match=r"weight must be \(9, 6\) .* got \(8, 6\)"):
        emissions(by_frame, by_state, weight[:8], bias, observed, FRAMES, STATES)
    with pytest.raises(ValueError, match="by_state"):
        emissions(by_frame, by_state[..., :5], weight, bias, observed, FRAMES, STATES)

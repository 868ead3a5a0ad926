"""The HMM's Triton kernel on the CPU interpreter: run by test_hmm.py in a process of its own."""

import pytest
import torch

from melstate.kernels.backend import interpreting
from melstate.kernels.hmm import feasible, hmm_log_likelihood, hmm_posteriors, readable

torch.set_num_threads(1)
assert interpreting(), "run with TRITON_INTERPRET=1"


def draw():
    generator = torch.Generator().manual_seed(0)
    frames, states = torch.tensor([9, 1, 6]), torch.tensor([4, 1, 6])
    emission, transition = (torch.randn(3, 9, 6, generator=generator) for _ in range(2))
    emission = (5 * emission).masked_fill(~feasible(frames, states, 9, 6), float("nan"))
    return emission, transition.masked_fill(~readable(frames, states, 9, 6), float("nan")), frames, states


@pytest.mark.parametrize("convention", ["generative", "published"])
def test_likelihood_and_gradients_equal_the_definition(convention):
    emission, transition, frames, states = draw()
    results = {}
    for backend, dtype in (("reference", torch.float64), ("triton", torch.float32)):
        known = torch.nan_to_num if backend == "reference" else torch.clone
        leaves = [known(x.to(dtype)).requires_grad_() for x in (emission, transition)]
        found = hmm_log_likelihood(*leaves, frames, states, convention=convention, backend=backend)
        results[backend] = [found.detach(), *torch.autograd.grad(found.sum(), leaves)]
    for found, wanted in zip(results["triton"], results["reference"], strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


def test_without_gradients_only_the_forward_sweep_runs():
    operands = draw()
    torch.testing.assert_close(
        hmm_log_likelihood(*operands, backend="triton"), hmm_log_likelihood(*operands, backend="chunked")
    )
    torch.testing.assert_close(
        hmm_posteriors(*operands, backend="triton"), hmm_posteriors(*operands, backend="chunked"), rtol=1e-4, atol=1e-5
    )


def test_what_the_kernel_cannot_do_is_refused():
    emission, transition, frames, states = draw()
    with pytest.raises(ValueError, match="float64"):
        hmm_log_likelihood(emission.double(), transition.double(), frames, states, backend="triton")
    wide, one = torch.zeros(1, 1, 9000), torch.tensor([1])
    with pytest.raises(ValueError, match="at most 8192 states, got 9000"):
        hmm_log_likelihood(wide, wide, one, one, backend="triton")

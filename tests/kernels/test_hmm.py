"""Left-to-right HMMs against every path, against their definition, and against autograd through it."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from melstate.kernels.hmm import (
    feasible,
    hmm_log_likelihood,
    hmm_posteriors,
    hmm_reference,
    hmm_viterbi,
    readable,
)

CONVENTIONS = ("generative", "published")


def draw(frames, states, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    emission = spread * torch.randn(frames, states, generator=generator, dtype=torch.float64)
    return emission, torch.randn(frames, states, generator=generator, dtype=torch.float64)


def every_path(frames, states):
    """State of each frame, for every path."""
    for cuts in itertools.combinations(range(1, frames), states - 1):
        durations = torch.diff(torch.tensor([0, *cuts, frames]))
        yield torch.repeat_interleave(torch.arange(states), durations).tolist()


def path_score(path, emission, transition, convention):
    """By the letter of the model: emissions, the decision at every frame boundary, and leaving the last state."""
    frames = len(path)
    score = sum(emission[t, n] for t, n in enumerate(path))
    for t in range(1, frames):
        decided = transition[t - 1 if convention == "generative" else t, path[t - 1]]
        score = score + (F.logsigmoid(decided) if path[t] > path[t - 1] else F.logsigmoid(-decided))
    return score + F.logsigmoid(transition[-1, -1])


def padded(rows, fill=float("nan")):
    time, width = max(len(b) for b, _ in rows), max(b.shape[1] for b, _ in rows)
    pads = [(0, width - b.shape[1], 0, time - len(b)) for b, _ in rows]
    stacked = [
        torch.stack([F.pad(row[i], pad, value=fill) for row, pad in zip(rows, pads, strict=True)]) for i in (0, 1)
    ]
    lengths = [torch.tensor([b.shape[i] for b, _ in rows]) for i in (0, 1)]
    return (*stacked, *lengths)


def hidden(emission, transition, frames, states):
    """What no path needs, made unreadable."""
    return [
        x.masked_fill(~needed(frames, states, *x.shape[1:]), float("nan")).requires_grad_()
        for x, needed in ((emission, feasible), (transition, readable))
    ]


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(("frames", "states"), [(1, 1), (5, 1), (2, 2), (7, 7), (7, 3), (6, 5)])
def test_the_likelihood_sums_over_every_path(frames, states, convention):
    emission, transition = draw(frames, states, frames + states, spread=3.0)
    scores = torch.stack([path_score(p, emission, transition, convention) for p in every_path(frames, states)])
    wanted = scores.logsumexp(0)
    assert float((hmm_reference(emission, transition, convention) - wanted).abs()) < 1e-12
    batch = emission[None], transition[None], torch.tensor([frames]), torch.tensor([states])
    assert float((hmm_log_likelihood(*batch, convention=convention)[0] - wanted).abs()) < 1e-12


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_posteriors_are_the_paths_shares(convention):
    emission, transition = draw(7, 4, 3, spread=2.0)
    paths = list(every_path(7, 4))
    share = torch.stack([path_score(p, emission, transition, convention) for p in paths]).softmax(0)
    wanted = torch.zeros_like(emission)
    for weight, path in zip(share, paths, strict=True):
        wanted[torch.arange(7), torch.tensor(path)] += weight
    batch = emission[None], transition[None], torch.tensor([7]), torch.tensor([4])
    for backend in ("chunked", "reference"):
        found = hmm_posteriors(*batch, convention=convention, backend=backend)[0]
        assert float((found - wanted).abs().max()) < 1e-12
        assert float((found.sum(1) - 1).abs().max()) < 1e-12


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_viterbi_finds_the_best_of_all_paths(convention):
    for seed, (frames, states) in enumerate([(1, 1), (6, 6), (7, 3), (7, 2)]):
        emission, transition = draw(frames, states, seed)
        best = max(every_path(frames, states), key=lambda p: float(path_score(p, emission, transition, convention)))
        batch = emission[None], transition[None], torch.tensor([frames]), torch.tensor([states])
        assert hmm_viterbi(*batch, convention=convention)[0].tolist() == [best.count(n) for n in range(states)]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_padded_batch_gives_each_utterance_its_own(data):
    convention = data.draw(st.sampled_from(CONVENTIONS))
    states = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    seed = data.draw(st.integers(0, 2**31))
    rows = [draw(n + data.draw(st.integers(0, 5)), n, seed + i, spread=5.0) for i, n in enumerate(states)]
    emission, transition, frames, heights = padded(rows)
    batch = (*hidden(emission, transition, frames, heights), frames, heights)
    found = hmm_log_likelihood(*batch, convention=convention)
    gradients = torch.autograd.grad(found.sum(), batch[:2])
    posteriors = hmm_posteriors(*batch, convention=convention)
    durations = hmm_viterbi(*batch, convention=convention)
    assert durations.sum(1).tolist() == frames.tolist()
    for row, (b, v) in enumerate(rows):
        frames_here, states_here = b.shape
        leaves = b.clone().requires_grad_(), v.clone().requires_grad_()
        single = hmm_reference(*leaves, convention)
        torch.testing.assert_close(found[row], single, rtol=0, atol=1e-10)
        for gradient, wanted in zip(
            gradients, torch.autograd.grad(single, leaves, materialize_grads=True), strict=True
        ):
            inside = gradient[row, :frames_here, :states_here]
            torch.testing.assert_close(inside, wanted, rtol=0, atol=1e-10)
            assert int(gradient[row].count_nonzero()) == int(inside.count_nonzero())
        assert float((posteriors[row, :frames_here].sum(1) - 1).abs().max()) < 1e-12
        assert posteriors[row, frames_here:].abs().sum() == 0 and posteriors[row, :, states_here:].abs().sum() == 0
        assert int(durations[row, :states_here].min()) >= 1 and int(durations[row, states_here:].sum()) == 0


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_gradients_are_those_of_finite_differences(convention):
    emission, transition, frames, states = padded([draw(6, 3, 1), draw(4, 4, 2), draw(3, 1, 3)], fill=0.0)

    def function(b, v):
        return hmm_log_likelihood(b, v, frames, states, convention=convention)

    assert torch.autograd.gradcheck(function, (emission.requires_grad_(), transition.requires_grad_()))


def test_with_as_many_frames_as_states_there_is_one_path():
    emission, transition = draw(5, 5)
    batch = emission[None], transition[None], torch.tensor([5]), torch.tensor([5])
    torch.testing.assert_close(hmm_posteriors(*batch)[0], torch.eye(5, dtype=torch.float64))
    wanted = emission.diagonal().sum() + F.logsigmoid(transition.diagonal()).sum()
    assert float((hmm_log_likelihood(*batch)[0] - wanted).abs()) < 1e-12


def test_single_precision_holds_over_a_long_utterance():
    """800 frames, 180 states, densities of 80 dimensions: thousands of nats between neighbours."""
    emission, transition = draw(800, 180, 4, spread=60.0)
    emission = emission - 0.5 * (torch.arange(180) - torch.arange(800)[:, None] * 180 / 800).square()
    lengths = torch.tensor([800]), torch.tensor([180])
    wanted = hmm_posteriors(emission[None], transition[None], *lengths)
    found = hmm_posteriors(emission[None].float(), transition[None].float(), *lengths)
    assert float((found - wanted).abs().max()) < 3e-3
    exact = hmm_log_likelihood(emission[None], transition[None], *lengths)
    single = hmm_log_likelihood(emission[None].float(), transition[None].float(), *lengths)
    assert float((single - exact).abs() / exact.abs()) < 1e-6


def test_too_few_frames_are_refused_by_name():
    emission, transition = (torch.zeros(2, 4, 5) for _ in range(2))
    lengths = torch.tensor([4, 4]), torch.tensor([3, 5])
    for function in (hmm_log_likelihood, hmm_posteriors, hmm_viterbi):
        with pytest.raises(ValueError, match="utterance 'short' has 4 frames for 5 states"):
            function(emission, transition, *lengths, names=("long", "short"))
    with pytest.raises(ValueError, match="utterance 1 has 4 frames for 5"):
        hmm_log_likelihood(emission, transition, *lengths)


def test_bad_operands_are_refused():
    x, frames, states = torch.zeros(2, 4, 3), torch.tensor([4, 4]), torch.tensor([3, 3])
    with pytest.raises(ValueError, match="'sideways' is not one of generative, published"):
        hmm_log_likelihood(x, x, frames, states, convention="sideways")
    with pytest.raises(ValueError, match="one shape"):
        hmm_log_likelihood(x, x[:, :3], frames, states)
    with pytest.raises(ValueError, match="float32 or float64"):
        hmm_log_likelihood(x.half(), x.half(), frames, states)
    with pytest.raises(ValueError, match=r"integers of shape \(2,\)"):
        hmm_log_likelihood(x, x, frames[:1], states)
    with pytest.raises(ValueError, match="utterance 1 has 5 frames and 3 states, outside operands of 4 × 3"):
        hmm_log_likelihood(x, x, torch.tensor([4, 5]), states)
    with pytest.raises(ValueError, match="utterance 0 has 4 frames and 0 states"):
        hmm_log_likelihood(x, x, frames, torch.tensor([0, 3]))
    broken = x.clone()
    broken[1, 2, 1] = float("nan")
    with pytest.raises(ValueError, match="utterance 'b' is nan"):
        hmm_log_likelihood(broken, x, frames, states, names="ab")
    with pytest.raises(RuntimeError, match="needs CUDA"):
        hmm_log_likelihood(x, x, frames, states, backend="triton")


def test_interpreted_kernel_equals_the_definition():
    script = Path(__file__).with_name("interpreted_hmm.py")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", script]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("states", [1, 31, 32, 33, 190, 900])
def test_on_the_gpu(states, convention):
    rows = [draw(states + extra, states, extra, spread=20.0) for extra in (0, 1, 300)]
    emission, transition, frames, heights = (x.cuda() for x in padded(rows, fill=0.0))
    results = {}
    for backend, dtype in (("chunked", torch.float64), ("triton", torch.float32)):
        leaves = [x.to(dtype).clone().requires_grad_() for x in (emission, transition)]
        found = hmm_log_likelihood(*leaves, frames, heights, convention=convention, backend=backend)
        results[backend] = [found.detach(), *torch.autograd.grad(found.sum(), leaves)]
    for found, wanted in zip(results["triton"], results["chunked"], strict=True):
        assert float((found - wanted).abs().max() / wanted.abs().max()) < 2e-3

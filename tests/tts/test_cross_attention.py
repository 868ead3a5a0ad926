"""The position-aware attention equals its definition, one step at a time equals all at once, padding never leaks."""

import math

import pytest
import torch

from melstate.tts.cross_attention import NOWHERE, PositionAwareAttention, Text, places


def build(dtype=torch.float32, mixer="gla", options=None):
    torch.manual_seed(0)
    made = PositionAwareAttention(12, 10, 6, 8, 16, mixer, {"heads": 2} if options is None else options)
    with torch.no_grad():
        made.log_sharpness.fill_(math.log(3.0))
    return made.to(dtype)


def inputs(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    speech = torch.randn(2, 9, 12, generator=generator).to(dtype)
    encoded = torch.randn(2, 7, 10, generator=generator).to(dtype)
    inside = torch.arange(7) < torch.tensor([[7], [5]])
    return speech, encoded, inside


def prepare(model, encoded, inside, offset=0):
    text = model.prepare(encoded, inside, offset)
    return text._replace(places=text.places.to(encoded.dtype))


def definition(model, speech, encoded, count, allowed):
    """One row, symbol by symbol and step by step, in plain formulas; the path block alone is the module's own."""

    def norm(x, weight):
        return x / (x.square().mean() + 1e-5).sqrt() * weight

    text = [norm(e, model.text_norm.weight) for e in encoded[:count]]
    keys = [model.key.weight @ e + model.key.bias for e in text]
    values = [model.value.weight @ e + model.value.bias for e in text]
    where = [place for place in places(torch.arange(count), model.place_dim).to(encoded.dtype)]
    state, read, weights = None, [], []
    for t, frame in enumerate(speech):
        heard = norm(frame, model.norm.weight)
        query = model.query.weight @ heard + model.query.bias
        scores = [query @ key / math.sqrt(len(query)) if allowed[t, n] else -math.inf for n, key in enumerate(keys)]
        expected = sum(p * x for p, x in zip(torch.tensor(scores).to(query.dtype).softmax(0), where, strict=True))
        entered = model.from_place.weight @ expected + model.from_place.bias + model.from_speech.weight @ heard
        path, state = model.path(entered[None, None], state)
        place = expected + model.to_place.weight @ path[0, 0] + model.to_place.bias
        logits = [
            model.log_sharpness.exp() * (place @ x) if allowed[t, n] else torch.tensor(-math.inf).to(place.dtype)
            for n, x in enumerate(where)
        ]
        share = torch.stack(logits).softmax(0)
        weights.append(share)
        mixed = sum(p * value for p, value in zip(share, values, strict=True))
        read.append(model.out.weight @ mixed + model.out.bias)
    return torch.stack(read), torch.stack(weights)


@pytest.mark.parametrize("guarded", [False, True])
@torch.no_grad()
def test_it_is_what_its_definition_says(guarded):
    model, (speech, encoded, inside) = build(torch.float64), inputs(torch.float64)
    allowed = torch.ones(2, 9, 7, dtype=torch.bool)
    if guarded:
        allowed = torch.rand(2, 9, 7, generator=torch.Generator().manual_seed(2)) < 0.5
        allowed[..., 2] = True
    found, _ = model(speech, prepare(model, encoded, inside), allowed=allowed if guarded else None)
    for row, count in enumerate((7, 5)):
        read, weights = definition(model, speech[row], encoded[row], count, allowed[row, :, :count])
        torch.testing.assert_close(found.read[row], read, atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(found.weights[row, :, :count], weights, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("mixer", "options"), [("gla", {"heads": 2}), ("lstm", {}), ("rwkv6", {"heads": 2})])
@torch.no_grad()
def test_one_step_at_a_time_is_the_same(mixer, options):
    model, (speech, encoded, inside) = build(mixer=mixer, options=options), inputs()
    text = model.prepare(encoded, inside)
    whole, after = model(speech, text)
    state, parts = None, []
    for t in range(9):
        part, state = model(speech[:, t : t + 1], text, state)
        parts.append(part)
    torch.testing.assert_close(torch.cat([p.read for p in parts], 1), whole.read, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.cat([p.weights for p in parts], 1), whole.weights, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_padding_never_leaks():
    model, (speech, encoded, inside) = build(), inputs()
    disturbed = torch.where(inside[..., None], encoded, 1e3)
    text = model.prepare(disturbed, inside)
    found = model(speech, text)[0]
    alone = model(speech[1:], Text(*(part[1:, :5] for part in model.prepare(encoded, inside))))[0]
    torch.testing.assert_close(found.read[1:], alone.read, atol=1e-6, rtol=1e-5)
    assert float(found.weights[1, :, 5:].abs().max()) == 0.0
    assert bool((found.position[1, :, 5:] == NOWHERE).all() and (found.content[1, :, 5:] == NOWHERE).all())


@torch.no_grad()
def test_what_is_not_allowed_gets_nothing_but_is_still_told():
    model, (speech, encoded, inside) = build(), inputs()
    text = model.prepare(encoded, inside)
    allowed = torch.zeros(2, 9, 7, dtype=torch.bool)
    allowed[..., 1:3] = True
    found = model(speech, text, allowed=allowed)[0]
    torch.testing.assert_close(found.weights[..., 1:3].sum(-1), torch.ones(2, 9))
    assert bool((found.position[0] > NOWHERE).all())


def test_places_tell_distances_alone():
    near = places(torch.arange(400), 64)
    products = near @ near.T
    torch.testing.assert_close(products.diagonal(), torch.ones(400))
    torch.testing.assert_close(products[5, 9], products[305, 309], atol=1e-5, rtol=0)
    assert float((products - torch.eye(400)).max()) < 0.96, "neighbours can be told apart"
    torch.testing.assert_close(places(torch.tensor([7]), 64), places(torch.arange(3, 10), 64)[4:5])


def test_gradients_are_right():
    model, (speech, encoded, inside) = build(torch.float64), inputs(torch.float64)

    def read(speech, encoded):
        attended = model(speech, prepare(model, encoded, inside))[0]
        return attended.read, attended.weights

    given = speech[:, :3].clone().requires_grad_(), encoded.clone().requires_grad_()
    assert torch.autograd.gradcheck(read, given, fast_mode=True)
    assert not torch.autograd.grad(sum(x.sum() for x in read(*given)), given[1])[0][1, 5:].any(), "padding gets none"


def test_an_odd_place_width_is_refused():
    with pytest.raises(ValueError, match="place_dim must be even, got 7"):
        PositionAwareAttention(12, 10, 6, 7, 16, "gla", {"heads": 2})

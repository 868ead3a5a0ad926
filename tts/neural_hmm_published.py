"""Published Neural-HMM checkpoints as neural HMMs of ours."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from melstate.tts.neural_hmm import NeuralHMM
from melstate.vocoders.mel import MelConfig

PREFIX = "model."


def read_neural_hmm(path: str | Path, *, mel_mean: float, mel_std: float) -> NeuralHMM:
    """A checkpoint of the authors' repository.

    Args:
        path: torch file holding {"state_dict": …} of the Lightning module.
        mel_mean, mel_std: the scalars that its training normalised log-mels by; they are not in the file.
    Raises: FileNotFoundError; ValueError: not such a checkpoint; names the first tensor that is missing or differs.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        tensors = {name.removeprefix(PREFIX): x for name, x in saved["state_dict"].items() if name.startswith(PREFIX)}
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a Neural-HMM checkpoint ({error})") from error
    try:
        return from_published(tensors, mel_mean=mel_mean, mel_std=mel_std).eval()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def from_published(tensors: Mapping[str, Tensor], *, mel_mean: float, mel_std: float) -> NeuralHMM:
    """The same from tensors by their published names without "model."; sizes are read off their shapes.

    The published output network reads [h_t; e_n] with one weight for all states, and a symbol's encoding is cut into
    as many parts as it has states. Ours reads the whole encoding with a weight for each state: the published weight on
    that state's part, zero on the others.
    """
    left = dict(tensors)

    def take(name: str, *shape: int) -> Tensor:
        if name not in left:
            raise ValueError(f"tensor '{name}' is missing; not a published Neural-HMM, or one of another layout")
        found = left.pop(name)
        if len(found.shape) != len(shape) or any(b not in (-1, a) for a, b in zip(found.shape, shape, strict=True)):
            raise ValueError(f"tensor '{name}' has shape {tuple(found.shape)}, expected {shape}; -1 is any")
        return found.float()

    embedding = take("embedding.weight", -1, -1)
    symbols, width = embedding.shape
    blocks = sum(name.startswith("encoder.convolutions.") and name.endswith(".0.conv.weight") for name in left)
    state: dict[str, Tensor] = {"encoder.embedding.weight": embedding}
    kernel = 1
    for block in range(blocks):
        source = f"encoder.convolutions.{block}"
        state[f"encoder.convolutions.{block}.weight"] = take(f"{source}.0.conv.weight", width, width, -1)
        state[f"encoder.convolutions.{block}.bias"] = take(f"{source}.0.conv.bias", width)
        kernel = state[f"encoder.convolutions.{block}.weight"].shape[2]
        for name in ("weight", "bias", "running_mean", "running_var"):
            state[f"encoder.norms.{block}.{name}"] = take(f"{source}.1.{name}", width)
        state[f"encoder.norms.{block}.num_batches_tracked"] = left.pop(f"{source}.1.num_batches_tracked")
    for direction in ("", "_reverse"):
        for name in ("weight_ih", "weight_hh"):
            state[f"encoder.lstm.{name}_l0{direction}"] = take(f"encoder.lstm.{name}_l0{direction}", 4 * width, width)
        for name in ("bias_ih", "bias_hh"):
            state[f"encoder.lstm.{name}_l0{direction}"] = take(f"encoder.lstm.{name}_l0{direction}", 4 * width)

    go = take("hmm.go_tokens", 1, -1)[0]
    bands = len(go)
    first = take("hmm.prenet.layers.0.linear.0.weight", -1, bands)
    prenet = len(first)
    state["go"], state["prenet.layers.0.weight"] = go, first
    state["prenet.layers.1.weight"] = take("hmm.prenet.layers.1.linear.0.weight", prenet, prenet)
    recurrent = take("hmm.post_prenet_rnn.weight_hh", -1, -1)
    context = recurrent.shape[1]
    if context < prenet:
        raise ValueError(f"the LSTM has {context} cells for a prenet of {prenet}; at least as many are needed")
    # Our mixers have one width: the prenet's output enters as the first of the LSTM's inputs, the others are zero.
    state["enter.weight"], state["enter.bias"] = torch.eye(context, prenet), torch.zeros(context)
    inputs = torch.zeros(4 * context, context)
    inputs[:, :prenet] = take("hmm.post_prenet_rnn.weight_ih", 4 * context, prenet)
    state["mixer.rnn.weight_ih_l0"], state["mixer.rnn.weight_hh_l0"] = inputs, recurrent
    for name in ("bias_ih", "bias_hh"):
        state[f"mixer.rnn.{name}_l0"] = take(f"hmm.post_prenet_rnn.{name}", 4 * context)

    source = "hmm.decoder.decoder_network.layers"
    reads = take(f"{source}.0.linear.0.weight", -1, -1)
    output, part = reads.shape[0], reads.shape[1] - context
    if part <= 0 or 2 * width % part:
        raise ValueError(f"encodings of {2 * width} cannot be cut into states of {part}; another layout")
    states = 2 * width // part
    state["from_past.weight"] = reads[:, :context]
    state["from_symbol.weight"] = torch.block_diag(*[reads[:, context:]] * states)
    state["from_symbol.bias"] = take(f"{source}.0.linear.0.bias", output).repeat(states)
    state["from_prosody.weight"] = torch.zeros(output, 3)
    state["out.weight"] = take(f"{source}.1.weight", 2 * bands + 1, output)
    state["out.bias"] = take(f"{source}.1.bias", 2 * bands + 1)
    if left:
        raise ValueError(f"tensor '{min(left)}' has no place in a neural HMM; OverFlow checkpoints are not read")

    model = NeuralHMM(
        symbols=symbols,
        mel=MelConfig(n_mels=bands).to_dict(),
        dim=2 * width,
        encoder="conv_lstm",
        encoder_blocks=blocks,
        kernel=kernel,
        dropout=0.5,
        states=states,
        prenet=prenet,
        context=context,
        mixer="lstm",
        output=output,
        convention="published",
        pausing=(),
    )
    kept = {name: buffer for name, buffer in model.state_dict().items() if name.startswith("prosody_")}
    state["mel_mean"] = torch.full_like(model.mel_mean, mel_mean)
    state["mel_std"] = torch.full_like(model.mel_std, mel_std)
    model.load_state_dict(state | kept)
    return model

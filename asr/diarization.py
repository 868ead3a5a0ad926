"""Who speaks when nobody said how many there are: embeddings of stretches of speech, clustered.

Online, `SpeakerTracker` keeps one running centroid a speaker, so hours need no more memory than seconds. Offline,
`cluster` sees all stretches at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class TrackerState(NamedTuple):
    """All that is kept of the past.

    Attributes:
        sums: (max_speakers, dim) weighted sums of embeddings; zero rows are speakers not yet met.
        weights: (max_speakers,) seconds heard of each, never more than the tracker's memory.
        met: speakers met so far.
    """

    sums: Tensor
    weights: Tensor
    met: int


class SpeakerTracker:
    """Numbers speakers 0, 1, … by order of appearance, one stretch of speech after the other.

    A stretch joins the speaker whose centroid is nearest in angle, or opens a new one where none is near enough. A
    short stretch says little about a voice: under `seconds_to_open` it never opens a speaker but the first.

    Args:
        dim: of the embeddings.
        threshold: cosine under which nobody known is meant.
        max_speakers: later ones join the nearest; bounds the memory.
        seconds_to_open: length from which a stretch may open a speaker.
        memory: seconds that a centroid is averaged over, so that it follows a voice that changes.
    """

    def __init__(
        self,
        dim: int,
        threshold: float = 0.5,
        max_speakers: int = 16,
        seconds_to_open: float = 0.5,
        memory: float = 120.0,
    ) -> None:
        if not -1 <= threshold <= 1 or max_speakers < 1 or memory <= 0:
            raise ValueError(
                "speaker tracker: need a cosine as threshold, max_speakers >= 1 and memory > 0 s, got "
                f"threshold={threshold}, max_speakers={max_speakers}, memory={memory}"
            )
        self.dim, self.threshold, self.max_speakers = dim, threshold, max_speakers
        self.seconds_to_open, self.memory = seconds_to_open, memory

    def start(self, enrolled: Sequence[Tensor] = ()) -> TrackerState:
        """The state before the first stretch.

        Args:
            enrolled: one embedding each of speakers known beforehand, numbered from 0; with as many as `max_speakers`
                the set is closed.
        Raises: ValueError: more than `max_speakers`, or another dim.
        """
        if len(enrolled) > self.max_speakers:
            raise ValueError(
                f"speaker tracker: {len(enrolled)} speakers enrolled, at most {self.max_speakers} are kept"
            )
        sums, weights = torch.zeros(self.max_speakers, self.dim), torch.zeros(self.max_speakers)
        for number, embedding in enumerate(enrolled):
            sums[number] = self._unit(embedding) * self.memory
            weights[number] = self.memory
        return TrackerState(sums, weights, len(enrolled))

    def assign(self, embedding: Tensor, state: TrackerState, seconds: float = 1.0) -> tuple[int, TrackerState]:
        """(speaker's number, new state); `state` stays as it was.

        Args:
            embedding: (dim,), any length but zero.
            seconds: speech it was made of: its weight in the centroid.
        Raises: ValueError: another dim, or an embedding that is zero or not finite.
        """
        unit = self._unit(embedding)
        number = count = state.met
        if count:
            similarity = torch.nn.functional.normalize(state.sums[:count], dim=1) @ unit
            nearest = int(similarity.argmax())
            near = bool(similarity[nearest] >= self.threshold) or seconds < self.seconds_to_open
            if near or count == self.max_speakers:
                number = nearest
        count = max(count, number + 1)
        sums, weights = state.sums.clone(), state.weights.clone()
        sums[number] += unit * seconds
        weights[number] += seconds
        excess = float(weights[number]) / self.memory
        if excess > 1:
            sums[number] /= excess
            weights[number] /= excess
        return number, TrackerState(sums, weights, count)

    def _unit(self, embedding: Tensor) -> Tensor:
        embedding = embedding.detach().float().cpu()
        length = float(embedding.norm()) if embedding.shape == (self.dim,) else 0.0
        if not 0 < length < float("inf"):
            raise ValueError(
                f"speaker tracker: an embedding has shape ({self.dim},), finite and not zero; got "
                f"{tuple(embedding.shape)} of length {length}"
            )
        return embedding / length


def cluster(embeddings: Tensor | np.ndarray, threshold: float = 0.5, max_speakers: int | None = None) -> list[int]:
    """Agglomerative clustering, average linkage on cosines (Day & Edelsbrunner 1984): a speaker for each embedding.

    Numbers are by order of appearance. O(n²) memory: for recordings at hand whole; use SpeakerTracker on streams.

    Args:
        embeddings: (n, dim), none of them zero.
        threshold: clusters are joined while their mean cosine is at least this.
        max_speakers: join further, down to so many.
    Raises: ValueError: not (n, dim), or an embedding that is zero or not finite.
    """
    points = np.asarray(embeddings, np.float64)
    if points.ndim != 2:
        raise ValueError(f"cluster: embeddings of shape {points.shape}, expected (n, dim)")
    lengths = np.linalg.norm(points, axis=1)
    if not ((lengths > 0) & np.isfinite(lengths)).all():
        raise ValueError(
            f"cluster: embedding {int(np.argmin((lengths > 0) & np.isfinite(lengths)))} is zero or not finite"
        )
    if len(points) < 2:
        return [0] * len(points)
    from scipy.cluster.hierarchy import fcluster, linkage

    tree = linkage(points / lengths[:, None], method="average", metric="cosine")
    labels = fcluster(tree, 1 - threshold, criterion="distance")
    if max_speakers is not None and labels.max() > max_speakers:
        labels = fcluster(tree, max_speakers, criterion="maxclust")
    order: dict[int, int] = {}
    return [order.setdefault(int(label), len(order)) for label in labels]

"""Word search over phone probabilities: CTC through a tree of pronunciations, with a language model over words.

Pieces of words are learned by heart from a few hours of speech; phones are not. A hypothesis is a node of the tree
after some words; those that agree in node and language-model history are one, with the likelier words. The language
model's best unigram below a node is counted ahead of time, so that long words are not lost before they end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import ClassVar, NamedTuple

import numpy as np

from melstate.asr.beam import NEVER, add
from melstate.asr.language_model import LanguageModel
from melstate.asr.pronunciations import Pronunciations
from melstate.asr.reading import Layer, Reading
from melstate.asr.tokens import BLANK


class Hypothesis(NamedTuple):
    """What may have been said so far.

    Attributes:
        node: where in the tree. history: the language model's.
        ends: the node and the number of each finished word.
        blank, label: log-probability of all paths to it that end in a blank, or in the node's phone.
        language: weighted language score of the finished words, word bonus included.
    """

    node: int
    history: tuple[int, ...]
    ends: tuple[tuple[int, int], ...]
    blank: float
    label: float
    language: float

    @property
    def acoustic(self) -> float:
        return add(self.blank, self.label)


@dataclass(frozen=True)
class WordBeam:
    """Token passing over a pronunciation tree, with CTC's blanks and repeats.

    Attributes:
        tree: what can be said. language: scores words.
        width: hypotheses kept; breadth: how much less likely than the best one may be (natural log).
        floor: log-probability under which a phone is not tried at a frame.
        weight: of the language model. bonus: added for every word.
    """

    layer: ClassVar[Layer] = "phones"
    tree: Pronunciations
    language: LanguageModel
    width: int = 100
    breadth: float = 12.0
    floor: float = -7.0
    weight: float = 0.8
    bonus: float = 1.0
    ahead: list[float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        unigrams = np.array([self.language.unigram(word) for word in self.tree.words])
        best = self.tree.best_below(unigrams)
        object.__setattr__(self, "ahead", [0.0, *(self.weight * score for score in best[1:])])

    def start(self) -> list[Hypothesis]:
        return [Hypothesis(0, self.language.start, (), 0.0, NEVER, 0.0)]

    def advance(self, hypotheses: Sequence[Hypothesis], log_probs: np.ndarray) -> list[Hypothesis]:
        """The best hypotheses after the frames of log_probs (S, phones), best first."""
        kept = list(hypotheses)
        for frame in log_probs:
            kept = self._step(kept, frame)
        return kept

    def readings(self, hypotheses: Sequence[Hypothesis]) -> list[Reading]:
        """What was said if it ends here, best first; of several pronunciations the best stands for all.

        Hypotheses in the middle of a word are left out; if all are, they lose that word.
        """
        whole = [end for spoken in hypotheses for end in ([spoken] if spoken.node == 0 else self._ended(spoken))]
        found: dict[tuple[str, ...], Reading] = {}
        for spoken in whole or hypotheses:
            closing = self.weight * self.language.end(spoken.history) if spoken.ends else 0.0
            words = tuple(self.tree.words[number] for _, number in spoken.ends)
            other = found.get(words)
            if other is None or other.score < spoken.acoustic + spoken.language + closing:
                phones = tuple(self.tree.phones_to(node) for node, _ in spoken.ends)
                found[words] = Reading(words, phones, spoken.acoustic, spoken.language + closing)
        return sorted(found.values(), key=lambda reading: -reading.score)

    def _ended(self, hypothesis: Hypothesis) -> Sequence[Hypothesis]:
        """The hypothesis after each word that ends at its node."""
        ended = []
        for number in self.tree.ends.get(hypothesis.node, ()):
            word = self.tree.words[number]
            score, history = self.language.score(hypothesis.history, word)
            language = hypothesis.language + self.weight * score + self.bonus
            ends = (*hypothesis.ends, (hypothesis.node, number))
            ended.append(hypothesis._replace(history=history, ends=ends, language=language))
        return ended

    def _step(self, hypotheses: list[Hypothesis], frame: np.ndarray) -> list[Hypothesis]:
        log_probs = frame.tolist()
        blank, floor, ahead, phones = log_probs[BLANK], self.floor, self.ahead, self.tree.phones
        # node and history → the likelier hypothesis behind it, log-probability ending in a blank, in the node's phone
        reached: dict[tuple[int, tuple[int, ...]], list] = {}
        for hypothesis in hypotheses:
            node = hypothesis.node
            stays = hypothesis.label + log_probs[phones[node]] if node else NEVER
            _merge(reached, hypothesis, node, hypothesis.acoustic + blank, stays)
        best = max(add(e[1], e[2]) + e[0].language + ahead[key[0]] for key, e in reached.items())
        for hypothesis in hypotheses:
            node, total = hypothesis.node, hypothesis.acoustic
            last = phones[node]
            for origin, root in ((hypothesis, node), *((end, 0) for end in self._ended(hypothesis))):
                # What is too far behind a hypothesis that is certain to stay would not be kept.
                least = best - self.breadth - origin.language
                for phone, child in self.tree.children(root):
                    value = log_probs[phone]
                    if value > floor:
                        value += hypothesis.blank if phone == last else total
                        if value + ahead[child] > least:
                            _merge(reached, origin, child, NEVER, value)
        ranked = nlargest(
            self.width,
            (
                (add(entry[1], entry[2]) + entry[0].language + ahead[key[0]], number, key[0], entry)
                for number, (key, entry) in enumerate(reached.items())
            ),
        )
        least = ranked[0][0] - self.breadth
        return [
            origin._replace(node=node, blank=ends_blank, label=ends_label)
            for score, _, node, (origin, ends_blank, ends_label) in ranked
            if score > least
        ]


def _merge(reached: dict, origin: Hypothesis, node: int, blank: float, label: float) -> None:
    """Adds paths to a node after some history; the words of the likelier ones stand for all."""
    key = node, origin.history
    entry = reached.get(key)
    if entry is None:
        reached[key] = [origin, blank, label]
        return
    if add(blank, label) + origin.language > add(entry[1], entry[2]) + entry[0].language:
        entry[0] = origin
    entry[1], entry[2] = add(blank, entry[1]), add(label, entry[2])

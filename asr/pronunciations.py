"""Words and how they are spoken, as a tree of phones: words that begin alike share their beginnings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from melstate.asr.arrays import pack_words, read_arrays, unpack_words, write_arrays

MOST_PHONES = 256


class Pronunciations:
    """Node 0 is the root, before a word's first phone; every other node is a phone after those of its parent.

    Args:
        words: in any order, without repeats.
        phones: (nodes,) id of each node's phone, ≥ 1 but for the root's 0.
        parents: (nodes,) of each node, before it in the order; the root's is 0.
        ends: (ends, 2) pairs of node and word: where each pronunciation of a word ends.
    Raises: ValueError: arrays that are no tree of words.
    """

    def __init__(self, words: Sequence[str], phones: np.ndarray, parents: np.ndarray, ends: np.ndarray) -> None:
        nodes = len(phones)
        if nodes < 2 or len(parents) != nodes or ends.ndim != 2 or ends.shape[1] != 2:
            raise ValueError("pronunciations: phones, parents and ends are no tree of words")
        if (parents[1:] >= np.arange(1, nodes)).any() or ends[:, 0].max() >= nodes or ends[:, 1].max() >= len(words):
            raise ValueError("pronunciations: a node comes before its parent, or an end leads nowhere")
        self.words = tuple(words)
        self.phones, self._parents = phones.tolist(), parents.tolist()
        self._arrays = (phones, parents, ends)
        self._order = (np.argsort(parents[1:], kind="stable") + 1).tolist()
        self._first = np.searchsorted(np.sort(parents[1:]), np.arange(nodes + 1)).tolist()
        self._children: dict[int, list[tuple[int, int]]] = {}
        self.ends: dict[int, list[int]] = {}
        for node, word in ends.tolist():
            self.ends.setdefault(node, []).append(word)

    @classmethod
    def build(cls, spoken: Mapping[str, Iterable[Sequence[int]]]) -> Pronunciations:
        """From words and the phone ids of each of their pronunciations; empty ones are left out."""
        children: dict[tuple[int, int], int] = {}
        phones, parents, ends = [0], [0], []
        words = sorted(word for word, ways in spoken.items() if any(ways))
        for number, word in enumerate(words):
            for way in sorted({tuple(way) for way in spoken[word] if way}):
                node = 0
                for phone in way:
                    if not 0 < phone < MOST_PHONES:
                        raise ValueError(f"pronunciations: phone {phone} of '{word}' is not in 1..{MOST_PHONES - 1}")
                    if (node, phone) not in children:
                        children[node, phone] = len(phones)
                        phones.append(phone)
                        parents.append(node)
                    node = children[node, phone]
                ends.append((node, number))
        if not words:
            raise ValueError("pronunciations: no word with a pronunciation")
        return cls(words, np.array(phones, np.uint8), np.array(parents, np.int32), np.array(ends, np.int32))

    def children(self, node: int) -> list[tuple[int, int]]:
        """The phones that may come next and the nodes they lead to."""
        found = self._children.get(node)
        if found is None:
            nodes = self._order[self._first[node] : self._first[node + 1]]
            found = self._children[node] = [(self.phones[child], child) for child in nodes]
        return found

    def phones_to(self, node: int) -> tuple[int, ...]:
        """The phones from a word's beginning to the node."""
        phones: list[int] = []
        while node:
            phones.append(self.phones[node])
            node = self._parents[node]
        return tuple(reversed(phones))

    def best_below(self, scores: np.ndarray) -> list[float]:
        """The best score (words,) of the words that each node may still become."""
        phones, parents, ends = self._arrays
        best = np.full(len(phones), -np.inf)
        np.maximum.at(best, ends[:, 0], scores[ends[:, 1]])
        for node in range(len(phones) - 1, 0, -1):
            parent = parents[node]
            if best[node] > best[parent]:
                best[parent] = best[node]
        return best.tolist()

    def save(self, path: str | Path) -> None:
        """Write an .npz, whole or not at all."""
        phones, parents, ends = self._arrays
        write_arrays(path, {"words": pack_words(self.words), "phones": phones, "parents": parents, "ends": ends})

    @classmethod
    def load(cls, path: str | Path) -> Pronunciations:
        """Raises: FileNotFoundError: no such file. ValueError: no pronunciations in it."""
        return read_arrays(path, "pronunciation tree", "export it again", cls._from_arrays)

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Pronunciations:
        return cls(unpack_words(arrays["words"]), arrays["phones"], arrays["parents"], arrays["ends"])

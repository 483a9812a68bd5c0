"""Which samples of the batch made an operation fail, and which of their values explain it."""

from collections.abc import Iterator, Mapping

import numpy as np

from whynan.analysis.blame import Blame
from whynan.analysis.scene import Scene
from whynan.ir.dtype import Array
from whynan.watching.provenance import MIXED, NONE, Labels, element_labels, labelled, sample_labels
from whynan.watching.record import Element

TOLD = 3  # samples whose values are told
FAR = 8.0  # an element that lies so many mean deviations from the other samples' explains more than its neighbours
FEW = 3  # a sample of so few values is told whole
DOMINATES = 10.0  # how many times the median of its operands one must be to be held responsible for an overflowing sum

TINY = float(np.finfo(np.float32).tiny)

Index = tuple[int, ...]


class Culprits:
    """Samples and values behind the blamed operation of a recorded step. `axes` say along which axis of the data the samples lie."""

    def __init__(self, scene: Scene, why: Blame, given: Mapping[str, Array], axes: Mapping[str, int]) -> None:
        self._scene, self._why = scene, why
        known = scene.graph.inputs
        self._given = {n: a for n, a in given.items() if n in known and a.size}
        self._axes = {n: axis for n, axis in axes.items() if n in self._given}
        self._places: dict[int, tuple[int, Index]] = {}  # by sample: a node and the index of an element that failed
        self.samples: tuple[int, ...] = self._found() if self._axes else ()

    def _found(self) -> tuple[int, ...]:
        node = self._why.node
        labels = labelled(self._scene, self._labels(), [node])
        self._note(node, labels[node], self._wrong(node))
        if not self._places:
            self._overflowing(labels)
        if not self._places:  # where samples hang together, as after a batch norm, each still has its own row
            self._note(node, labelled(self._scene, self._labels(), [node], own=True)[node], self._wrong(node))
            if len(self._places) == self._batch():
                self._places.clear()
        return tuple(sorted(self._places)) or self._further_on()

    def _further_on(self) -> tuple[int, ...]:
        """The samples that a failure in what no sample has a part in (a row of a table) reaches first."""
        reached = self._reached(self._why.node)
        labels = labelled(self._scene, self._labels(), reached)
        for i in reached:
            self._note(i, labels[i], self._wrong(i))
            if 0 < len(self._places) < self._batch():
                return tuple(sorted(self._places))
            self._places.clear()
        return ()

    def _labels(self) -> dict[int, Labels]:
        return {self._scene.graph.inputs[n]: sample_labels(self._given[n], axis) for n, axis in self._axes.items()}

    def _batch(self) -> int:
        return int(next(self._given[n].shape[axis] for n, axis in self._axes.items()))

    def _reached(self, origin: int) -> list[int]:
        """The nodes of the same phase that the failure has come to, in order."""
        found = {origin}
        for n in self._scene.graph.nodes[origin + 1 :]:
            if n.phase == self._scene.graph.nodes[origin].phase and self._scene.bad(n.id) and not found.isdisjoint(n.inputs):
                found.add(n.id)
        return sorted(found - {origin})

    def _wrong(self, node: int) -> Array:
        wrong = self._scene.wrong(node)
        return np.zeros(self._scene.graph.nodes[node].shape, bool) if wrong is None else wrong

    def _note(self, node: int, labels: Labels, chosen: Array) -> None:
        """Remember the samples of the chosen elements, as far as each is of one."""
        mask = chosen & (labels != NONE) & (labels != MIXED)
        for index in np.argwhere(mask):
            self._places.setdefault(int(labels[tuple(index)]) - 1, (node, tuple(int(k) for k in index)))

    def _overflowing(self, labels: Mapping[int, Labels]) -> None:
        """Of a sum over samples that is too large: the samples with by far the largest terms."""
        for j in self._scene.graph.nodes[self._why.node].inputs:
            value = self._scene.value(j)
            if value is None or not value.size or not self._why.cause.endswith("overflow"):
                continue
            size = np.abs(value.astype(np.float64))
            self._note(j, labels[j], size > DOMINATES * max(float(np.median(size)), TINY))

    # ------------------------------------------------------------ values

    def elements(self) -> tuple[Element, ...]:
        """What the data have where it failed: the elements that the failing one was computed from, else those that stand out."""
        if not self.samples:
            return tuple(self._all_alike())
        found: list[Element] = []
        for sample in self.samples[:TOLD]:
            node, index = self._places[sample]
            found += self._of_sample(sample, *self._operand(node, index))
        return tuple(dict.fromkeys(found))

    def _operand(self, node: int, index: Index) -> tuple[int, Index]:
        """Where to look for what explains an element: of a derivative its forward operation, of a quotient the divisor."""
        nodes = self._scene.graph.nodes
        same = [m.id for m in self._scene.derived(nodes[node]) if m.shape == nodes[node].shape]
        node = same[-1] if same else node
        if nodes[node].op == "div":
            divisor = nodes[node].inputs[1]
            shape = nodes[divisor].shape
            at = tuple(0 if n == 1 else k for n, k in zip(shape, index[len(index) - len(shape) :], strict=True))
            if any(self._label(name, element_labels(a), divisor, at) != NONE for name, a in self._given.items()):
                return divisor, at
        return node, index

    def _of_sample(self, sample: int, node: int, index: Index) -> list[Element]:
        told: list[Element] = []
        mixed: list[tuple[float, str, Index]] = []
        for name, values in self._given.items():
            label = self._label(name, element_labels(values), node, index)
            if label not in (NONE, MIXED):
                told.append(_element(name, values, tuple(int(k) for k in np.unravel_index(int(label) - 1, values.shape))))
            elif label == MIXED and name in self._axes:
                score, where = self._standing_out(name, sample, node, index)
                mixed.append((score, name, where))
                told += [_element(name, values, where)] if score >= FAR else []
        if told or not mixed or len(self.samples) > 1:
            return told
        few = [n for _, n, _ in mixed if self._given[n].size <= FEW * self._given[n].shape[self._axes[n]]]
        score, name, where = max(mixed, key=lambda m: m[0])
        return [e for n in few for e in self._row(n, sample)] or [_element(name, self._given[name], where)]

    def _row(self, name: str, sample: int) -> Iterator[Element]:
        """All values of a sample that has few."""
        values, axis = self._given[name], self._axes[name]
        for index in np.ndindex(*values.shape[:axis], 1, *values.shape[axis + 1 :]):
            yield _element(name, values, (*index[:axis], sample, *index[axis + 1 :]))

    def _label(self, name: str, labels: Labels, node: int, index: Index) -> float:
        """The label of a node's element, if those of an input's elements are these."""
        return float(labelled(self._scene, {self._scene.graph.inputs[name]: labels}, [node])[node][index])

    def _standing_out(self, name: str, sample: int, node: int, index: Index) -> tuple[float, Index]:
        """How far the sample's most unusual element lies from the other samples', among those that the failing one can stem from."""
        values, batch_axis = self._given[name], self._axes[name]
        region, corner = [slice(None)] * values.ndim, [0] * values.ndim
        for axis in range(values.ndim):
            if axis != batch_axis and values.shape[axis] > 1:
                label = self._label(name, sample_labels(values, axis), node, index)
                if label not in (NONE, MIXED):
                    corner[axis] = int(label) - 1
                    region[axis] = slice(corner[axis], corner[axis] + 1)
        score, where = _standing_out(values[tuple(region)], batch_axis, sample)
        return score, tuple(k + c for k, c in zip(where, corner, strict=True))

    def _all_alike(self) -> Iterator[Element]:
        """Where no sample is to blame: data that are the same everywhere, such as an empty mask."""
        for name, values in self._given.items():
            if (values == values.reshape(-1)[0]).all() and self._takes_part(name):
                yield _element(name, values, (0,) * values.ndim)

    def _takes_part(self, name: str) -> bool:
        node = self._why.node
        labels = labelled(self._scene, {self._scene.graph.inputs[name]: element_labels(self._given[name])}, [node])[node]
        return bool((labels[self._wrong(node)] != NONE).any())


def _element(name: str, values: Array, where: Index) -> Element:
    return Element(name, where, float(values[where]))


def _standing_out(values: Array, axis: int, sample: int) -> tuple[float, Index]:
    """How far the sample's most unusual element lies from those of the other samples, in their mean deviation, and its index."""
    wide = np.moveaxis(values.astype(np.float64), axis, 0)
    row, others = wide[sample], np.delete(wide, sample, axis=0)
    if not len(others):
        others = wide
    with np.errstate(all="ignore"):
        centre = np.median(others, axis=0)
        spread = float(np.mean(np.abs(others - centre))) or float(np.abs(centre).max()) * 1e-6 or TINY
        score = np.nan_to_num(np.abs(row - centre) / spread, nan=np.inf, posinf=np.inf)
    at = tuple(int(k) for k in np.unravel_index(int(np.argmax(score)), row.shape))
    best = float(score[at]) if row.ndim else float(score)
    if row.size > 1 and (row == row.reshape(-1)[0]).all() and not _constant(others):
        best, at = np.inf, (0,) * row.ndim
    return best, (*at[:axis], sample, *at[axis:])


def _constant(rows: Array) -> bool:
    """Whether some sample's values are all the same."""
    flat = rows.reshape(len(rows), -1)
    return bool((flat == flat[:, :1]).all(axis=1).any())

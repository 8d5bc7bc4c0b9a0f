"""Running networks over a test set, alone or with several workers."""
import collections
import time
from dataclasses import dataclass
from typing import Optional

import mxnet as mx
import numpy as np

from .. import data
from ..errors import UserError
from ..export.check import flatten
from ..export.crops import for_any_size
from .metrics import Metrics
from .predictions import Predictions
from .views import Protocol, Views

__all__ = ["Member", "Result", "evaluate"]

#: Batches that may be queued before the oldest one's outputs are waited for.
_PENDING = 2
#: Rows of predictions sent at a time between workers.
_PIECE = 4096


@dataclass
class Member:
    """One of the networks that are evaluated together.

    net: a Block or SymbolBlock, raw class scores first among its outputs. transform: a `gluonzoo.data.Transform` that makes its
    input. name: for figures and messages.
    """

    net: object
    transform: object
    name: Optional[str] = None

    def __post_init__(self):
        parameters = list(self.net.collect_params().values())
        self.ctx = parameters[0].list_ctx()[0] if parameters else mx.cpu()


@dataclass
class Result:
    """What `evaluate` found.

    figures: {"samples", "top1", "top5" (with more than five classes), "loss", "brier", "ece", "mce", "seconds",
    "images_per_second", "waited" (share of the seconds spent waiting for images)}; of several networks also "members", a dict of
    name, top1 and loss each. metrics: `Metrics`. predictions: `Predictions`, where they were asked for.
    largest_difference: between the outputs and those of the network they were compared with.
    """

    figures: dict
    metrics: Metrics
    predictions: Optional[Predictions] = None
    largest_difference: Optional[float] = None


class WholeBatches:
    """The test set in order, cut into batches that do not depend on the number of workers; each goes to one of them.

    So a sample is run in the same batch, and gets the same bits, however many workers there are. What a `Loader` asks of
    `ShardedBatches`.
    """

    def __init__(self, length, batch_size, rank=0, num_workers=1):
        self.length, self.batch_size, self.rank, self.num_workers = length, batch_size, rank, num_workers
        self.shuffle, self.blocks = False, None

    def __len__(self):
        batches = -(-self.length // self.batch_size)
        return len(range(self.rank, batches, self.num_workers))

    def _part(self, number):
        first = (self.rank + number * self.num_workers) * self.batch_size
        return np.arange(first, min(first + self.batch_size, self.length), dtype=np.int64)

    def epoch(self, epoch=0, start=0):
        """This worker's `Batch`es."""
        return (data.Batch(number, self._part(number), len(self._part(number))) for number in range(start, len(self)))

    def groups(self, epoch=0, start=0):
        """This worker's samples, for data sets that read ahead."""
        return [self._part(number) for number in range(start, len(self))]


def _scores(block, ctx, planes, batch_size):
    """The first outputs for all views, still being computed: a list of NDArrays."""
    return [flatten(block(mx.nd.array(planes[start:start + batch_size], ctx=ctx)))[0][1]
            for start in range(0, len(planes), batch_size)]


def _log_softmax(scores):
    """(M, K) or (M, K, h, w) class scores -> (M, K) float64; over a map they are averaged first."""
    scores = scores.astype(np.float64)
    scores = scores.reshape(scores.shape[:2] + (-1,)).mean(axis=2)
    # An infinite score makes NaN of its row, which the metrics count.
    with np.errstate(invalid="ignore"):
        scores = scores - scores.max(axis=1, keepdims=True)
        return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def _average(parts, count):
    """The logarithm of the mean probability of each image over its views.

    parts: [(log-probabilities (M, K), owners (M,))] -> (count, K).
    """
    if len(parts) == 1 and np.array_equal(parts[0][1], np.arange(count)):
        return parts[0][0]
    total = np.full((count, parts[0][0].shape[1]), -np.inf)
    views = np.zeros(count)
    for values, owners in parts:
        for value, owner in zip(values, owners):
            total[owner] = np.logaddexp(total[owner], value)
        views += np.bincount(owners, minlength=count)
    return total - np.log(views)[:, None]


def _check(members, dataset):
    if not members:
        raise UserError("no network to evaluate; expected at least one Member")
    if not len(dataset):
        raise UserError(f"{dataset.name} has no {dataset.split} samples; nothing to evaluate")


def evaluate(members, dataset, protocol=None, batch_size=64, store=None, confusion=False, predictions=False, compare=None,
             bins=15, beat=None):
    """Metrics of one network, or of several whose probabilities are averaged, over a data set; every worker must call it.

    With several workers each runs some of the batches; every sample counts once, and all workers get the figures that one alone
    gets: to the bit where their processes have as many threads, else dense layers may add in another order and a loss differ
    in float32's last digit. Memory does not grow with the data set, but for the predictions where they are asked for.

    Args:
        members: `Member`s. dataset: of `gluonzoo.data.load`. protocol: a `Protocol`; default: the centre of each image.
        batch_size: views run at once. store: a `distributed.KVStore`, or None.
        confusion: count the confusion matrix. predictions: keep what was said of every sample.
        compare: another Block for the only member's inputs, whose outputs' largest difference is told.
        bins: of confidence. beat: called with the number of images run so far, after every batch.
    Returns: `Result`, the same on every worker (but for the times).
    Raises: UserError when there is nothing to run, or outputs and classes differ in number.
    """
    protocol = protocol or Protocol()
    _check(members, dataset)
    if compare is not None and (len(members) > 1 or not protocol.plain):
        raise UserError("outputs are compared of one network and one crop; expected neither several networks nor crops or scales")
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected at least 1")
    transforms, shared = _transforms(members)
    views = Views(protocol, transforms)
    dense = protocol.crops == "dense"
    blocks = [for_any_size(member.net, member.transform.input_shape, member.name) if dense else member.net for member in members]
    count = len(dataset.classes)
    totals = [Metrics(count, confusion, bins)] + [Metrics(count) for _ in members if len(members) > 1]
    gatherer = _Rows() if predictions else None
    rank, workers = (store.rank, store.num_workers) if store is not None else (0, 1)
    images_at_once = max(1, batch_size // protocol.views_of_an_image())
    batches = WholeBatches(len(dataset), images_at_once, rank, workers)
    difference, done, begun = 0.0, 0, time.monotonic()
    pending = collections.deque()

    def settle(most):
        nonlocal difference, done
        while len(pending) > most:
            indices, labels, outputs, others = pending.popleft()
            logs = [_average([(_log_softmax(np.concatenate([part.asnumpy() for part in parts])), owners)
                              for parts, owners in groups], len(labels)) for groups in outputs]
            if others is not None:
                difference = max(difference, _distance(outputs[0][0][0], others))
            mean = logs[0] if len(logs) == 1 else np.logaddexp.reduce(logs, axis=0) - np.log(len(logs))
            said = totals[0].add(mean, labels)
            for metrics, log in zip(totals[1:], logs):
                metrics.add(log, labels)
            if gatherer is not None:
                gatherer.add(indices, labels, *said)
            done += len(labels)
            if beat is not None:
                beat(done)

    mx.nd.waitall()  # For the running statistics of a backward pass that is still running.
    with data.Loader(dataset, batches, views, epoch=0) as loader:
        for batch, shown, labels in loader:
            outputs = [[(_scores(block, member.ctx, planes, batch_size), owners) for planes, owners in shown[which]]
                       for block, member, which in zip(blocks, members, shared)]
            others = _scores(compare, members[0].ctx, shown[0][0][0], batch_size) if compare is not None else None
            pending.append((batch.indices, np.asarray(labels), outputs, others))
            settle(_PENDING)
        settle(0)
        waited = getattr(loader, "waited", None)
    seconds = time.monotonic() - begun
    for metrics in totals:
        metrics.gather(store)
    kept = gatherer.gather(store) if gatherer is not None else None
    if compare is not None and workers > 1:
        difference = float(store.gather(np.array([difference])).max())
    figures = _figures(totals[0], count, seconds, waited)
    if len(members) > 1:
        figures["members"] = [{"name": member.name, "top1": metrics.top1, "loss": metrics.loss}
                              for member, metrics in zip(members, totals[1:])]
    said = Predictions(*kept, tuple(map(str, dataset.classes)), dataset.name, dataset.split) if kept is not None else None
    return Result(figures, totals[0], said, difference if compare is not None else None)


def _transforms(members):
    """The different transforms of the members, and which is whose: members with equal ones are shown the same arrays."""
    keys, transforms, shared = [], [], []
    for member in members:
        key = member.transform.input_shape, member.transform.mean, member.transform.std
        if key not in keys:
            keys.append(key)
            transforms.append(member.transform)
        shared.append(keys.index(key))
    return transforms, shared


def _distance(outputs, others):
    """The largest difference between outputs of two networks; infinite where one is not a number."""
    distance = np.abs(np.concatenate([part.asnumpy() for part in outputs]) - np.concatenate([part.asnumpy() for part in others]))
    # NaN counts as far apart; max() alone would pass over it.
    return float(np.where(np.isnan(distance), np.inf, distance).max())


def _figures(metrics, classes, seconds, waited):
    calibration = metrics.calibration()
    figures = {"samples": metrics.samples, "loss": metrics.loss, "top1": metrics.top1}
    if classes > 5:
        figures["top5"] = metrics.top5
    figures.update(brier=metrics.brier, ece=calibration.ece, mce=calibration.mce)
    if metrics.not_finite:
        figures["not_finite"] = metrics.not_finite
    figures.update(seconds=seconds, images_per_second=metrics.samples / max(seconds, 1e-9))
    if waited is not None:
        figures["waited"] = waited / max(seconds, 1e-9)
    return figures


class _Rows:
    """What is kept of every sample: rows of (index, label, guess, confidence, likelihood), float64 which holds them exactly."""

    def __init__(self):
        self._parts = []

    def add(self, *columns):
        self._parts.append(np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1))

    def gather(self, store):
        """The columns of all workers' rows, in the order of the data set."""
        rows = np.concatenate(self._parts) if self._parts else np.zeros((0, 5))
        if store is not None and store.num_workers > 1:
            counts = store.gather(np.array([len(rows)]))[:, 0]
            pieces = []
            for start in range(0, int(counts.max()), _PIECE):
                piece = np.zeros((_PIECE, 5))
                here = rows[start:start + _PIECE]
                piece[:len(here)] = here
                pieces += [part[:max(0, int(number) - start)] for part, number in zip(store.gather(piece), counts)]
            rows = np.concatenate(pieces)
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        return [rows[:, column].astype(np.int64) for column in range(3)] + [rows[:, 3].copy(), rows[:, 4].copy()]

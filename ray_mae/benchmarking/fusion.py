"""Which views of a study a score is of, and how they become one: the inputs of heads."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ray_mae.benchmarking.features import Features, mean_of_views
from ray_mae.benchmarking.records import SampleTable
from ray_mae.data.schema import VIEWS
from ray_mae.evaluate.heads.base import Data, Head, HeadFit, Kind, Tokens
from ray_mae.evaluate.probe.scaling import principal_components

FRONTAL, LATERAL = VIEWS.index("frontal"), VIEWS.index("lateral")
BY_LOGITS, BY_ATTENTION = "both_logits", "both_attention"


def seen_views(features: Features, samples: int, condition: str) -> NDArray[np.bool_]:
    """Returns which of N views a condition shows; a sample without what it asks for has none.

    Args:
        features: of N views of the samples.
        samples: S.
        condition: one of `config.suite.Views`. first1 and first2 are the first views of studies that have
            two, whatever they show, as the authors of MVMAE take them.
    """
    of, view = features.sample, features.view
    if condition == "all":
        return np.ones(len(of), bool)
    if condition in ("frontal", "lateral"):
        return view == VIEWS.index(condition)
    if condition.startswith("first"):
        count = np.bincount(of, minlength=samples)
        place = np.arange(len(of)) - np.searchsorted(of, of)  # of each view within its sample
        return (count[of] == 2) & (place < int(condition.removeprefix("first")))
    has = [np.bincount(of[view == v], minlength=samples) > 0 for v in (FRONTAL, LATERAL)]
    return (has[0] & has[1])[of] & np.isin(view, (FRONTAL, LATERAL))


def samples_with(table: SampleTable, condition: str, most: int) -> NDArray[np.bool_]:
    """Returns which samples [S] have what a condition shows, by what is known without their images.

    Args:
        table: of the samples; volumes have one view.
        condition: as of `seen_views`.
        most: views of a study that are looked at.
    """
    if condition == "all" or "view" not in table.attributes:
        return np.ones(len(table.sample), bool)
    if condition.startswith("first"):
        return np.array([min(count, most) == 2 for count in table.attributes["views"]], bool)
    wanted = {condition} if condition in ("frontal", "lateral") else {"frontal", "lateral"}
    return np.array([wanted <= {*of.split("+")} for of in table.attributes["view"]], bool)


class Inputs:
    """What heads see of S samples under a condition."""

    def __init__(
        self,
        features: Features,
        patient: NDArray[np.str_],
        condition: str,
        pools: list[str] | None = None,
        kind: Kind = "labels",
    ) -> None:
        """pools: vectors to choose from; None: all there are. kind: of the task."""
        self._patient, self._condition, self._kind = patient, condition, kind
        samples = len(patient)
        rows = seen_views(features, samples, condition)
        if not rows.all():
            features = replace(
                features,
                sample=features.sample[rows],
                view=features.view[rows],
                vectors={pool: values[rows] for pool, values in features.vectors.items()},
                tokens=None if features.tokens is None else features.tokens[rows],
            )
        self._features = features
        everything = np.ones(len(self._features.sample), bool)
        self._means, self.usable = mean_of_views(self._features, everything, samples)
        self._pools = pools

    @property
    def by_view(self) -> bool:
        """Whether a head sees one view at a time, and its logits are averaged."""
        return self._condition == BY_LOGITS

    def data(self, rows: NDArray[np.intp], targets: NDArray[np.float64]) -> Data:
        """What a head sees of some samples, one row each.

        Args:
            rows: [n] indices of samples, usable ones.
            targets: [S, L] of all samples.
        """
        vectors = {pool: values[rows] for pool, values in self._means.items()}
        return Data(
            self._chosen(vectors),
            targets[rows],
            self._patient[rows],
            self._tokens(rows),
            self._kind,
        )

    def views(self, rows: NDArray[np.intp], targets: NDArray[np.float64]) -> tuple[Data, NDArray]:
        """The same with a row for each view, and the place in `rows` [N'] that it is of."""
        place = np.full(len(self._patient), -1)
        place[rows] = np.arange(len(rows))
        at = place[self._features.sample]
        order = np.argsort(at, kind="stable")
        order = order[at[order] >= 0]
        of = self._features.sample[order]
        vectors = {pool: values[order] for pool, values in self._features.vectors.items()}
        tokens = None
        if self._features.tokens is not None:
            tokens = Tokens(
                self._features.tokens[order],
                np.arange(len(order)),
                self._features.view[order].astype(np.intp),
            )
        chosen, patient = self._chosen(vectors), self._patient[of]
        return Data(chosen, targets[of], patient, tokens, self._kind, at[order]), at[order]

    def fitted_to(self, rows: NDArray[np.intp], targets: NDArray[np.float64]) -> Data:
        """What a head is fitted to: samples, or their views where its logits are averaged."""
        return self.views(rows, targets)[0] if self.by_view else self.data(rows, targets)

    def predict(
        self,
        head: Head,
        fit: HeadFit,
        rows: NDArray[np.intp],
        targets: NDArray[np.float64],
        train: Data,
    ) -> NDArray[np.float32]:
        """Returns what a head says of some samples [n, L], fused over their views."""
        if not self.by_view:
            return head.predict(fit.chosen, fit.arrays, self.data(rows, targets), train)
        data, of = self.views(rows, targets)
        logits = head.predict(fit.chosen, fit.arrays, data, train)
        total = np.zeros((len(rows), logits.shape[1]))
        np.add.at(total, of, logits)
        count = np.bincount(of, minlength=len(rows))
        return (total / np.maximum(count, 1)[:, None]).astype(np.float32)

    def _chosen(self, vectors: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        if {"cls", "mean"} <= vectors.keys():
            both = np.concatenate([vectors["cls"], vectors["mean"]], axis=1)
            vectors = {**vectors, "cls+mean": both}
        if self._pools is None:
            return vectors
        return {pool: values for pool, values in vectors.items() if pool in self._pools}

    def _tokens(self, rows: NDArray[np.intp]) -> Tokens | None:
        if self._features.tokens is None:
            return None
        place = np.full(len(self._patient), -1)
        place[rows] = np.arange(len(rows))
        at = place[self._features.sample]
        order = np.argsort(at, kind="stable")
        order = order[at[order] >= 0]
        return Tokens(
            self._features.tokens[order], at[order], self._features.view[order].astype(np.intp)
        )


def components_of_pixels(
    features: Features, train: NDArray[np.bool_], most: int, seed: int
) -> Features:
    """The same views with principal components of their small images, fitted on training samples [S]."""
    pixels = features.vectors["pixels"]
    x = principal_components(pixels, train[features.sample], most, seed)
    return replace(features, vectors={"mean": x.astype(np.float32)})

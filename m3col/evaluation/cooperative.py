"""Cooperative learning: a linear model per modality, which agree with each other (Ding et al., PNAS 119, 2022).

Minimises over linear functions f_m of each modality

    1/2 |y - sum_m f_m|^2  +  rho/2 sum_{m<m'} |f_m - f_m'|^2  +  lambda/2 sum_m |w_m|^2.

rho = 0 is ridge regression on all columns side by side (early fusion); with a large rho each modality predicts alone
(late fusion). The intercept is not penalised.

Letters: N samples, M modalities, D_m columns of modality m, D their sum, K targets.
Differs: the authors' package also has an L1 penalty.
"""

from collections.abc import Sequence

import numpy as np
from scipy import linalg

from m3col.metrics.classification import Floats


class Cooperative:
    """The sums over training samples that all values of rho and lambda share.

    Args:
        blocks: [N, D_m] by modality.
        targets: [N, K].

    Example:
        >>> import numpy as np
        >>> x = np.array([[0.0], [1.0], [2.0]])
        >>> model = Cooperative([x, x], x)
        >>> model.predict([x, x], rho=1.0, penalty=1e-12).round(6).ravel().tolist()
        [0.0, 1.0, 2.0]
    """

    def __init__(self, blocks: Sequence[Floats], targets: Floats) -> None:
        self._means = [block.mean(axis=0) for block in blocks]
        x = np.concatenate(self._centred(blocks), axis=1)
        self._intercept = targets.mean(axis=0)
        self._products = x.T @ x
        self._correlations = x.T @ (targets - self._intercept)
        modality = np.repeat(np.arange(len(blocks)), [block.shape[1] for block in blocks])
        self._same = modality[:, None] == modality[None, :]
        self._others = len(blocks) - 1

    def _centred(self, blocks: Sequence[Floats]) -> list[Floats]:
        return [block - mean for block, mean in zip(blocks, self._means, strict=True)]

    def predict(self, blocks: Sequence[Floats], *, rho: float, penalty: float) -> Floats:
        """Predictions [N', K].

        Args:
            blocks: [N', D_m] by modality.
            rho: weight of the agreement.
            penalty: lambda, > 0.
        """
        # The gradient of the agreement: (M - 1) f_m - sum of the others, for each modality.
        agreement = np.where(self._same, self._others, -1.0) * self._products
        system = self._products + rho * agreement
        system.flat[:: len(system) + 1] += penalty
        weights = linalg.solve(system, self._correlations, assume_a="pos", overwrite_a=True, check_finite=False)
        predicted: Floats = np.concatenate(self._centred(blocks), axis=1) @ weights + self._intercept
        return predicted

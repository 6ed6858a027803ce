"""FactorCL: shared and unique information of two modalities, each with bounds and heads of its own.

Letters: N samples in the global batch, n of them on this rank, D embedding width, C classes; X1, X2 the two modalities,
X1', X2' their augmentations, y the label as a number, o its one-hot code.
Paper: Liang et al., "Factorized Contrastive Learning", arXiv 2306.05268, in the form of their code:

    L     = - nce(X1; X2) + club(X1; X2) - nce(X1; X1') - nce(X2; X2') - nce([X1, X1']; [X2, X2']) + club(the same)
    L_sup = - nce(X1; X2) + club(X1; X2) - nce(X1; y)   - nce(X2; y)   - nce([X1, o]; [X2, o])     + club(the same)

Differs: their code updates the critics of the club terms in a second step, with an optimizer of its own; here both
  steps are one. The gradients are routed in the same way: the club critics get only that of their own nce bound, for
  which the embeddings are constants, and nothing else gets a gradient of that bound.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from m3col.config.schema import RunConfig
from m3col.losses import club_bound, nce_bound
from m3col.methods.batch import CLEAN, Batch, Step
from m3col.methods.self_supervised import SelfSupervisedMethod
from m3col.methods.settings import FactorCLSettings
from m3col.models.named_modules import NamedModules
from m3col.tasks.base import Task

AUGMENTED = "a"

# The terms of the loss. Each has a head per modality and a critic; "own" has a critic per modality.
SHARED_NCE, SHARED_CLUB, OWN, GIVEN_NCE, GIVEN_CLUB = TERMS = ("nce", "club", "own", "given_nce", "given_club")


class Critic(nn.Module):
    """Scores of all pairs: rows a [N, D_a] and b [N, D_b] to [N, N], with the pair (a_j, b_i) at [j, i].

    Linear(D_a + D_b, H), ReLU, Linear(H, H), ReLU, Linear(H, 1) on concatenated pairs. The first layer is computed for
    a and b on their own and added, which gives the same sum. The last one has no bias: it cancels in both bounds.
    """

    def __init__(self, a: int, b: int, hidden: int) -> None:
        super().__init__()
        self.of_a, self.of_b = nn.Linear(a, hidden), nn.Linear(b, hidden, bias=False)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1, bias=False))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        scores: Tensor = self.rest(self.of_a(a)[:, None, :] + self.of_b(b)[None, :, :]).squeeze(-1)
        return scores


def _head(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))


class FactorCL(SelfSupervisedMethod):
    """Lower bounds (nce) are raised and upper bounds (club) are lowered. All heads side by side are evaluated."""

    Settings: ClassVar = FactorCLSettings
    summary = "bounds of shared and unique information of two modalities"
    views: ClassVar[tuple[str, ...]] = (CLEAN, AUGMENTED)
    most_modalities = 2

    settings: FactorCLSettings

    @property
    def columns(self) -> int:
        return len(TERMS) * super().columns

    def add_parts(self, task: Task | None) -> None:
        super().add_parts(task)
        width, hidden = self.config.model.embedding_dim, self.settings.critic_hidden
        self.projections = NamedModules(
            {name: nn.ModuleDict({term: _head(width) for term in TERMS}) for name in self.modalities}
        )
        given, own = self._widths(width)
        self.critics = nn.ModuleDict(
            {
                SHARED_NCE: Critic(width, width, hidden),
                SHARED_CLUB: Critic(width, width, hidden),
                GIVEN_NCE: Critic(width + given, width + given, hidden),
                GIVEN_CLUB: Critic(width + given, width + given, hidden),
            }
        )
        self.own_critics = NamedModules({name: Critic(width, own, hidden) for name in self.modalities})

    def _widths(self, width: int) -> tuple[int, int]:
        """The columns of the condition that is put beside each modality, and of what its own term compares it with."""
        return width, width

    @classmethod
    def loss_names(cls, config: RunConfig, modalities: Sequence[str]) -> tuple[str, ...]:
        return ("loss", "bounds")

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        rows = batch.gather(
            {
                (view, name, term): self._heads(name)[term](embedding)
                for view, inputs in batch.views.items()
                for name, embedding in self.encode(inputs).items()
                for term in self._terms_of(view)
            }
        )
        first, second = self.modalities
        pairs = {term: (rows[CLEAN, first, term], rows[CLEAN, second, term]) for term in (SHARED_NCE, SHARED_CLUB)}
        for term in (GIVEN_NCE, GIVEN_CLUB):
            a, b = (
                torch.cat([rows[CLEAN, name, term], self._condition(rows, batch, name, term)], dim=1)
                for name in self.modalities
            )
            pairs[term] = (a, b)
        lower = [nce_bound(self.critics[term](*pairs[term])) for term in (SHARED_NCE, GIVEN_NCE)]
        lower += [
            nce_bound(self.own_critics[name](rows[CLEAN, name, OWN], self._compared(rows, batch, name)))
            for name in self.modalities
        ]
        upper = [club_bound(self._frozen(term, *pairs[term])) for term in (SHARED_CLUB, GIVEN_CLUB)]
        bounds = torch.stack(upper).sum() - torch.stack(lower).sum()
        fits = [
            nce_bound(self.critics[term](*(part.detach() for part in pairs[term])))
            for term in (SHARED_CLUB, GIVEN_CLUB)
        ]
        return {"loss": bounds - torch.stack(fits).sum(), "bounds": bounds}

    def _terms_of(self, view: str) -> Sequence[str]:
        return TERMS if view == CLEAN else (OWN, GIVEN_NCE, GIVEN_CLUB)

    def _condition(self, rows: Mapping[Any, Tensor], batch: Batch, name: str, term: str) -> Tensor:
        """What is put beside the rows of a modality in the conditional terms: its augmentation."""
        return rows[AUGMENTED, name, term]

    def _compared(self, rows: Mapping[Any, Tensor], batch: Batch, name: str) -> Tensor:
        """What the own term of a modality compares it with: its augmentation."""
        return rows[AUGMENTED, name, OWN]

    def _frozen(self, term: str, a: Tensor, b: Tensor) -> Tensor:
        """Scores of a critic whose weights get no gradient of them."""
        critic = self.critics[term]
        scores: Tensor = functional_call(critic, {name: w.detach() for name, w in critic.named_parameters()}, (a, b))
        return scores

    def _heads(self, name: str) -> nn.ModuleDict:
        heads = self.projections[name]
        assert isinstance(heads, nn.ModuleDict)
        return heads

    def joined(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        return torch.cat(
            [
                self._heads(name)[term](embeddings[name])
                for name in self.modalities
                if name in embeddings
                for term in TERMS
            ],
            dim=1,
        )


class FactorCLSup(FactorCL):
    """FactorCL with the label in the place of augmentations."""

    summary = "bounds of shared and unique information of two modalities, with labels"
    views = (CLEAN,)
    uses_labels = True
    tasks = ("single_label",)

    def _widths(self, width: int) -> tuple[int, int]:
        return self._outputs, 1

    def _condition(self, rows: Mapping[Any, Tensor], batch: Batch, name: str, term: str) -> Tensor:
        return functional.one_hot(batch.targets, self._outputs).to(rows[CLEAN, name, term].dtype)

    def _compared(self, rows: Mapping[Any, Tensor], batch: Batch, name: str) -> Tensor:
        return batch.targets[:, None].to(rows[CLEAN, name, OWN].dtype)

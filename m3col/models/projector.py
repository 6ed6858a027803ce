"""The projector of self-supervised methods: an MLP between the embeddings and the contrastive loss.

Letters: N rows of the global batch, D embedding width, H hidden width, P output width.
Paper: Dufumier et al., "What to align in multimodal contrastive learning?", arXiv 2409.07402, Appendix.
"""

from torch import Tensor, nn

from m3col.models.mlp import check_widths


class Projector(nn.Module):
    """Linear(D, H), BatchNorm, ReLU, Linear(H, H), BatchNorm, ReLU, Linear(H, P): rows [N, D] to [N, P].

    BatchNorm must see all rows of the global batch. With several ranks call it on the gathered rows, on every rank: the
    statistics and the gradients then equal those of a single process.

    Args:
        in_features: D.
        hidden: H.
        out_features: P.
    """

    def __init__(self, in_features: int, *, hidden: int, out_features: int) -> None:
        super().__init__()
        check_widths(in_features=in_features, hidden=hidden, out_features=out_features)
        self.layers = nn.Sequential(
            nn.Linear(in_features, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
            nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
            nn.Linear(hidden, out_features),
        )  # fmt: skip

    def forward(self, rows: Tensor) -> Tensor:
        projected: Tensor = self.layers(rows)
        return projected

"""The model of an image and a text as a careful person would write it for one GPU: the opponent of `image_text.py`.

Decoded images are uint8 tensors in pinned memory, tokens are arrays; each batch is padded to its longest text, as ours
is; matrix products are bfloat16 by autocast; Adam is fused; gradients of several batches are accumulated; and no step
waits for the GPU. Samples of a batch, first weights and mixing are taken over from ours, because they are inputs of the
arithmetic, so that the losses can be compared. Formulas are written as in the paper (arXiv 2409.17777).

Letters: n samples of a batch, L tokens of its longest text, D embedding width.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.cards import Stopwatch
from m3col.augmentation import sample_mixing
from m3col.training.fold_trainer import FoldTrainer

NAMES = ("image", "text")


def _head(width: int, trainer: FoldTrainer) -> nn.Sequential:
    model = trainer.config.model
    layers = [nn.Linear(width, model.classifier_dim), nn.ReLU()]
    for _ in range(model.classifier_layers - 2):
        layers += [nn.Linear(model.classifier_dim, model.classifier_dim), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(model.dropout), nn.Linear(model.classifier_dim, trainer.task.width))


class PlainPair(nn.Module):
    """Encoders of timm and transformers, a head for each, and one for both. Takes over the weights of `trainer`.

    The encoders must have the embedding width, so that neither has a projection.
    """

    def __init__(self, trainer: FoldTrainer) -> None:
        super().__init__()
        width = trainer.config.model.embedding_dim
        encoders: Any = dict(trainer.method.encoders.items())
        assert all(isinstance(encoder.projection, nn.Identity) for encoder in encoders.values())
        self.images, self.texts = (copy.deepcopy(encoders[name].model) for name in NAMES)
        self.heads = nn.ModuleList([_head(width, trainer), _head(width, trainer), _head(2 * width, trainer)])
        ours = [value for name, value in trainer.method.named_parameters() if not name.startswith("encoders")]
        for mine, theirs in zip(self.heads.parameters(), ours, strict=True):
            mine.data = theirs.detach().clone()
        self.to(trainer.device)

    def embed_text(self, words: Tensor, mask: Tensor) -> Tensor:
        """Class tokens [n, D] of word embeddings [n, L, D]. A ready mask [n, 1, L, L] keeps transformers from reading
        it, which would wait for the GPU."""
        whole = mask[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
        hidden: Tensor = self.texts(inputs_embeds=words, attention_mask=whole).last_hidden_state
        return hidden[:, 0]

    def words(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.texts.get_input_embeddings()(ids)
        return embedded

    def forward(self, batch: "PlainBatch", phase_is_mixing: bool, *, beta: float, temperature: float) -> Tensor:
        """The loss of one batch (Eq. 16)."""
        pixels = (batch.pixels.float() / 255 - 0.5) / 0.5
        words = self.words(batch.ids)
        p = [self.images(pixels), self.embed_text(words, batch.mask)]
        logits = [self.heads[0](p[0]), self.heads[1](p[1]), self.heads[2](torch.cat(p, dim=1))]
        loss = torch.stack([F.cross_entropy(value.float(), batch.labels) for value in logits]).sum()
        if not phase_is_mixing:
            return loss + beta * softclip(p, temperature)
        lam, (i, t) = batch.lam, batch.partners
        weight = lam[:, None, None]
        mixed_mask = (batch.mask & (weight[:, 0] > 0)) | (batch.mask[t] & (weight[:, 0] < 1))
        q = [
            self.images(weight[..., None] * pixels + (1 - weight[..., None]) * pixels[i]),
            self.embed_text(weight * words + (1 - weight) * words[t], mixed_mask),
        ]
        return loss + beta * m3co(p, q, [i, t], lam, temperature)


def m3co(p: Sequence[Tensor], q: Sequence[Tensor], partners: Sequence[Tensor], lam: Tensor, tau: float) -> Tensor:
    """Eq. 5-8 of two modalities, in float32."""
    u, v = [F.normalize(x.float()) for x in p], [F.normalize(x.float()) for x in q]
    with torch.autocast(lam.device.type, enabled=False):
        total = torch.zeros((), device=lam.device)
        for one, other in ((0, 1), (1, 0)):
            similarity = v[one] @ u[other].T / tau
            rows = F.log_softmax(similarity, dim=1) + F.log_softmax(similarity, dim=0)
            own, partner = rows.diagonal(), rows.gather(1, partners[one][:, None])[:, 0]
            total = total - (lam * own + (1 - lam) * partner).mean() / 2
        return total


def softclip(p: Sequence[Tensor], tau: float) -> Tensor:
    """Eq. 9-11 of two modalities, in float32."""
    u = [F.normalize(x.float()) for x in p]
    with torch.autocast(u[0].device.type, enabled=False):
        total = torch.zeros((), device=u[0].device)
        for one, other in ((0, 1), (1, 0)):
            weights = F.softmax(u[one] @ u[one].T / tau, dim=1)
            there = -F.log_softmax(u[other] @ u[one].T / tau, dim=1)
            back = -F.log_softmax(u[one] @ u[other].T / tau, dim=1)
            total = total + (weights * (there + back.T)).sum() / len(u[0]) / 2
        return total


class PlainBatch:
    """A batch on the device: pixels uint8 [n, 3, S, S]; ids, mask [n, L]; labels, lam and two sets of partners [n]."""

    def __init__(self, pixels: Tensor, ids: Tensor, labels: Tensor, *, pad_mask: Tensor, mixing: Any) -> None:
        self.pixels, self.ids, self.labels, self.mask = pixels, ids, labels, pad_mask
        self.lam, self.partners = mixing.lam, [mixing.permutations[name] for name in NAMES]


class PlainLoop:
    """Trains a `PlainPair` on all samples in memory.

    Args:
        trainer: ours, whose samples, weights and draws are taken over.
        precision: of matrix products, "bfloat16" or "float32".
    """

    def __init__(self, trainer: FoldTrainer, *, precision: str) -> None:
        self.trainer, self.device, config = trainer, trainer.device, trainer.config
        self.model = PlainPair(trainer).train()
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.train.learning_rate, weight_decay=config.train.weight_decay, fused=True
        )
        self.autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
        sources, pin = trainer._inputs, self.device.type == "cuda"
        chunks = [slice(start, start + 256) for start in range(0, len(trainer), 256)]
        pixels: Any = [sources["image"].rows(rows).cpu() for rows in chunks]  # type: ignore[union-attr]
        images = torch.cat([(part * 255).round().to(torch.uint8) for part in pixels])
        self.images = images.pin_memory() if pin else images
        texts: Any = sources["text"].rows(slice(None))
        self.ids, self.mask = texts.ids.cpu(), texts.mask.cpu()
        self.lengths = self.mask.sum(dim=1)
        assert trainer._labels is not None
        self.labels = trainer._labels.cpu()

    def _placed(self, rows: Tensor) -> Tensor:
        return rows.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else rows

    def batches(self, epoch: int) -> Iterator[PlainBatch]:
        """The batches of an epoch, with the samples and the mixing of ours."""
        config = self.trainer.config
        for number, index in enumerate(self.trainer._indices(epoch)):
            rows: Any = torch.arange(len(self.labels))[index] if isinstance(index, slice) else index.cpu()
            length = int(self.lengths[rows].max())
            key = {"seed": config.train.seed, "fold": 0, "epoch": epoch, "step": number}
            mixing = sample_mixing.draw_mixing(
                len(rows), NAMES, alpha=getattr(config.objective, "alpha", 1.0), shards=1, key=key, device=self.device
            )  # fmt: skip
            yield PlainBatch(
                self._placed(self.images[rows]), self._placed(self.ids[rows, :length].contiguous()),
                self._placed(self.labels[rows]), pad_mask=self._placed(self.mask[rows, :length].contiguous()),
                mixing=mixing,
            )  # fmt: skip

    def train_epoch(self, epoch: int, *, mixing: bool, stopwatch: Stopwatch | None = None) -> Tensor:
        """Trains an epoch. Returns the loss of its first batch, on the device. `mixing`: the phase of M3Co."""
        config: Any = self.trainer.config
        every = config.train.accumulate
        count = len(self.trainer._indices(epoch))
        first = torch.zeros((), device=self.device)
        for number, batch in enumerate(self.batches(epoch)):
            with self.autocast:
                loss = self.model(
                    batch, mixing, beta=config.objective.beta, temperature=config.objective.temperature
                )  # fmt: skip
            (loss / every).backward()
            first = loss.detach() if number == 0 else first
            if (number + 1) % every == 0 or number + 1 == count:
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                if stopwatch is not None:
                    stopwatch.step_done()
        return first

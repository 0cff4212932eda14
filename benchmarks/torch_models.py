"""The peers' networks, in PyTorch alone: measured without JAX in the process.

What each is the twin of is said in its first line; classifier.py and tagger.py check that. On a
GPU, float32 products and convolutions are of TensorFloat-32, which is JAX's default, and cuDNN
tries its algorithms before the first call of each shape.
"""

import numpy as np
import torch
import torchcrf
from torch import nn
from torch.nn import functional as F

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
if DEVICE.type != "cpu":
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
CNN_STAGES = ((40,), (80, 80), (160, 160), (320,))  # of `vision.models.CNN`


class TorchConvNorm(nn.Module):
    """Convolution, batch normalisation and perhaps ReLU; named as ours."""

    def __init__(self, before: int, channels: int, size: int = 3, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(before, channels, size, stride, size // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor, relu: bool = True) -> torch.Tensor:
        x = self.norm(self.conv(x))
        return F.relu(x) if relu else x


class TorchCNN(nn.Module):
    """`vision.models.CNN`."""

    def __init__(self) -> None:
        super().__init__()
        before = 3
        for s, stage in enumerate(CNN_STAGES, 1):
            for c, channels in enumerate(stage, 1):
                self.add_module(f"stage{s}_conv{c}", TorchConvNorm(before, channels))
                before = channels
        self.hidden, self.head = nn.Linear(before * 4, 160), nn.Linear(160, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for s, stage in enumerate(CNN_STAGES, 1):
            for c in range(1, len(stage) + 1):
                x = self.get_submodule(f"stage{s}_conv{c}")(x)
            x = F.max_pool2d(x, 2)
        x = x.permute(0, 2, 3, 1).flatten(1)  # in our order
        return self.head(F.relu(self.hidden(x)))


class TorchBlock(nn.Module):
    """`vision.models.ResidualBlock`, basic."""

    def __init__(self, before: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = TorchConvNorm(before, channels, 3, stride)
        self.conv2 = TorchConvNorm(channels, channels)
        if stride > 1:
            self.shortcut = TorchConvNorm(before, channels, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(self.conv1(x), relu=False)
        return F.relu(y + (self.shortcut(x, relu=False) if hasattr(self, "shortcut") else x))


class TorchResNet18(nn.Module):
    """ResNet-18 with the CIFAR stem."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, before = TorchConvNorm(3, 64), 64
        for s in range(1, 5):
            for b in (1, 2):
                channels, stride = 32 * 2**s, 2 if s > 1 and b == 1 else 1
                self.add_module(f"stage{s}_block{b}", TorchBlock(before, channels, stride))
                before = channels
        self.head = nn.Linear(before, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for s in range(1, 5):
            for b in (1, 2):
                x = self.get_submodule(f"stage{s}_block{b}")(x)
        return self.head(x.mean(dim=(2, 3)))


class TorchAirbench(nn.Module):
    """airbench94: `vision.airbench.AirBench` on maps of 31, 15, 7 and 3 pixels.

    The filters of the first layer are fixed, of any value: no time depends on it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.whitening = nn.Conv2d(3, 24, 2, bias=False)
        self.whitening.requires_grad_(False)
        groups, before = [], 24
        for channels in (64, 256, 256):
            groups += [
                nn.Conv2d(before, channels, 3, padding=1, bias=False),
                nn.MaxPool2d(2),
                nn.BatchNorm2d(channels),
                nn.GELU(),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.GELU(),
            ]
            before = channels
        self.groups, self.head = nn.Sequential(*groups), nn.Linear(before, 10, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.groups(F.gelu(self.whitening(x)))
        return self.head(F.max_pool2d(x, 3).flatten(1))


class Packed(nn.Module):
    """`text.models.Tagger` over fixed vectors: a packed bidirectional nn.LSTM, pytorch-crf."""

    def __init__(
        self,
        hidden: int,
        vectors: np.ndarray,
        num_tags: int,
        *,
        embedding_dropout: float = 0.0,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.vectors = torch.from_numpy(vectors).to(DEVICE)
        self.before, self.after = nn.Dropout(embedding_dropout), nn.Dropout(dropout)
        self.lstm = nn.LSTM(vectors.shape[1], hidden, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * hidden, num_tags)
        self.crf = torchcrf.CRF(num_tags, batch_first=True)

    def emissions(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Float32 [B, T, K] for tokens int64 [B, T] and lengths int64 [B], these on the CPU."""
        x = self.before(self.vectors[tokens])
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
        h, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.head(self.after(h))

    def loss(self, tokens: torch.Tensor, tags: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The mean negative log-likelihood of a sentence."""
        mask = make_mask(lengths, tokens.shape[1])
        return -self.crf(self.emissions(tokens, lengths), tags, mask=mask, reduction="mean")


def make_mask(lengths: torch.Tensor, steps: int) -> torch.Tensor:
    """Which steps are real: bool [B, T] on the device, for lengths int64 [B] anywhere."""
    return torch.arange(steps, device=DEVICE) < lengths.to(DEVICE)[:, None]

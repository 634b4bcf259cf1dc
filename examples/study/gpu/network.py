"""Fashion-MNIST on a device, and ResNet-18 for it (He et al., CVPR 2016, as it is used for CIFAR: a 3×3 first convolution and no
pooling behind it)."""
import gzip
import math
import pathlib

import torch
from torch import nn
from torch.nn import functional

MEAN, DEVIATION, SIDE = 0.286, 0.353, 28  # of the training images, with black 0 and white 1


def read_idx(path, count):
    content = gzip.decompress(path.read_bytes())
    start = 4 + 4 * content[3]
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).view(count, -1)


def load(folder):
    """{"train" and "test": (images, labels)}, images as bytes."""
    folder, out = pathlib.Path(folder), {}
    for part, stem, count in (("train", "train", 60_000), ("test", "t10k", 10_000)):
        images = read_idx(folder / f"{stem}-images-idx3-ubyte.gz", count).view(count, 1, SIDE, SIDE)
        out[part] = images, read_idx(folder / f"{stem}-labels-idx1-ubyte.gz", count)[:, 0].long()
    return out


def toy(train=128, test=40):
    """Ten patterns with noise, for tests without the data."""
    g = torch.Generator().manual_seed(1)
    patterns, out = torch.randint(0, 200, (10, 1, SIDE, SIDE), generator=g), {}
    for part, count in (("train", train), ("test", test)):
        labels = torch.arange(count) % 10
        out[part] = (patterns[labels] + torch.randint(0, 56, (count, 1, SIDE, SIDE), generator=g)).to(torch.uint8), labels
    return out


def normalised(images):
    return (images.float() / 255 - MEAN) / DEVIATION


def cropped_and_flipped(images, shifts, flips):
    """Images padded by four pixels, cut out at `shifts` (0 to 8, down and right) and mirrored where `flips` is true."""
    n = images.shape[0]
    padded = functional.pad(images, (4, 4, 4, 4))
    at = torch.arange(SIDE, device=images.device)
    rows, columns = shifts[:, :1] + at, shifts[:, 1:] + at
    columns = torch.where(flips[:, None], columns.flip(1), columns)
    return padded[torch.arange(n, device=images.device)[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
                                   nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.short = nn.Identity() if stride == 1 and inputs == outputs else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        return functional.relu(self.first(x) + self.short(x))


def resnet18(width=64):
    """11.2 million parameters at width 64."""
    layers, inputs = [nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()], width
    for k in range(4):
        for stride in (1 if k == 0 else 2, 1):
            layers.append(Block(inputs, width << k, stride))
            inputs = width << k
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


def top_eigenvalue(model, images, labels, steps=12):
    """Of the Hessian of the mean loss, by Lanczos's method with full orthogonalisation. BatchNorm uses the batch's means
    and keeps its running ones as they are."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    kept = [{k: v.clone() for k, v in m.state_dict().items()} for m in norms]
    model.train()
    parameters = list(model.parameters())
    loss = functional.cross_entropy(model(images), labels)
    slopes = torch.autograd.grad(loss, parameters, create_graph=True)

    def flat(tensors):
        return torch.cat([t.reshape(-1) for t in tensors])

    g = torch.Generator().manual_seed(1)
    v = torch.rand(sum(p.numel() for p in parameters), generator=g).to(images.device) - 0.5
    basis, diagonal, beside = [v / v.norm()], [], []
    for _ in range(steps):
        product = flat(torch.autograd.grad(flat(slopes), parameters, grad_outputs=basis[-1], retain_graph=True))
        diagonal.append(float(product @ basis[-1]))
        for _ in range(2):
            for b in basis:
                product = product - (product @ b) * b
        length = float(product.norm())
        if not math.isfinite(length) or length < 1e-12:
            break
        beside.append(length)
        basis.append(product / length)
    n = len(diagonal)
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for k, x in enumerate(beside[:n - 1]):
        matrix[k, k + 1] = matrix[k + 1, k] = x
    for m, state in zip(norms, kept):
        m.load_state_dict(state)
    return float(torch.linalg.eigvalsh(matrix)[-1])

"""The reader: a classifier that says what a picture shows, trained on drawn pictures alone.

    python reader.py POOL reader.pt [--steps 3000]

It measures how much of a caption a generated picture shows. The systems never see it.
"""

import argparse
import pickle
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scenes import COLORS, SHAPES, SIZES, TEXTURES, Scene
from torch import nn

# For each of two places (the upper or left one first; a single group is in the first): count, color,
# shape, texture, size; and how they are arranged.
ARRANGEMENTS = ["one", "vertical", "horizontal"]
HEADS = {"count": 4, "color": len(COLORS), "shape": len(SHAPES), "texture": len(TEXTURES), "size": len(SIZES)}


def labels(scene: Scene) -> list[int]:
    """What a reader should say of a scene's picture: the arrangement, then five attributes of each
    place, -1 where there is no group."""
    groups = list(scene.groups)
    if scene.relation in ("below", "right"):
        groups.reverse()
    how = 0 if scene.relation is None else 1 if scene.relation in ("above", "below") else 2
    values = [how]
    for i in range(2):
        if i < len(groups):
            g = groups[i]
            values += [g.count - 1, list(COLORS).index(g.color), SHAPES.index(g.shape), TEXTURES.index(g.texture), SIZES.index(g.size)]
        else:
            values += [-1] * 5
    return values


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        layers, previous = [], 3
        for channels in (32, 64, 96, 128):
            layers += [nn.Conv2d(previous, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2)]
            previous = channels
        self.trunk = nn.Sequential(*layers)
        self.hidden = nn.Sequential(nn.Linear(128 * 16, 256), nn.ReLU(), nn.Dropout(0.2))
        self.heads = nn.ModuleList([nn.Linear(256, len(ARRANGEMENTS))] + [nn.Linear(256, n) for _ in range(2) for n in HEADS.values()])

    def forward(self, pictures):
        """[B, 3, 64, 64] from -1 to 1 to eleven arrays of logits."""
        y = self.hidden(self.trunk(pictures).flatten(1))
        return [head(y) for head in self.heads]


@torch.no_grad()
def read(reader, pictures):
    """What is seen, [B, 11]."""
    return torch.stack([logits.argmax(1) for logits in reader(pictures)], 1)


def score(seen, scenes):
    """The share of right answers for count, color, shape, texture, size and position, and of pictures
    that are right in all. A position is right if the arrangement is, and neither place looks more
    like the other group."""
    right = {name: [] for name in [*HEADS, "position", "all"]}
    for values, scene in zip(seen.tolist(), scenes, strict=True):
        wanted = labels(scene)
        every = values[0] == wanted[0]
        for place in range(len(scene.groups)):
            for i, name in enumerate(HEADS):
                is_right = values[1 + 5 * place + i] == wanted[1 + 5 * place + i]
                right[name].append(is_right)
                every = every and is_right
        if scene.relation:
            own = sum(a == b for a, b in zip(values[1:], wanted[1:], strict=True))
            swapped = sum(a == b for a, b in zip(values[1:], wanted[6:] + wanted[1:6], strict=True))
            right["position"].append(values[0] == wanted[0] and own > swapped)
        else:
            right["position"].append(values[0] == wanted[0])
        right["all"].append(every)
    return {name: float(np.mean(values)) for name, values in right.items()}


def planes(pictures):
    """uint8 [B, H, W, 3] to [B, 3, H, W] from -1 to 1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pool", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    args = parser.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    pictures = np.load(args.pool / "pictures.npy", mmap_mode="r")
    scenes = pickle.loads((args.pool / "scenes.pickle").read_bytes())
    wanted = torch.tensor([labels(scene) for scene in scenes])
    test = 1000
    reader = Reader().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=args.steps)
    for step in range(args.steps):
        at = rng.integers(test, len(scenes), 64)
        x = planes(pictures[np.sort(at)])
        # Half of them as small pictures, enlarged; and noise, so that it reads imperfect ones, too.
        small = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
        x = torch.where(torch.rand(64, 1, 1, 1) < 0.5, small, x)
        x = x + torch.randn_like(x) * torch.rand(64, 1, 1, 1) * 0.15
        y = wanted[np.sort(at)]
        loss = sum(F.cross_entropy(logits, y[:, i], ignore_index=-1) for i, logits in enumerate(reader(x.contiguous(memory_format=torch.channels_last))))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 249:
            reader.eval()
            seen = torch.cat([read(reader, planes(pictures[i : i + 100])) for i in range(0, test, 100)])
            print(step + 1, round(loss.item(), 3), score(seen, scenes[:test]), flush=True)
            reader.train()
            torch.save(reader.state_dict(), args.result)


if __name__ == "__main__":
    main()

"""Scenes of colored shapes, their pictures and their captions.

A scene is one group of equal shapes, or two with a relation between them: "two red circles above a
striped blue square". Everything that a caption says is visible in its picture, and a reader can
check it.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

SIDE = 64
COLORS = {
    "red": (222, 45, 48), "orange": (247, 140, 30), "yellow": (246, 211, 35),
    "green": (48, 165, 76), "blue": (44, 102, 214), "purple": (142, 68, 190),
}  # fmt: skip
SHAPES = ["circle", "square", "triangle", "star", "heart"]
TEXTURES = ["plain", "striped", "dotted"]
SIZES = ["any", "small", "large"]
# "beside" is left or right, "and" any of the four.
RELATIONS = ["above", "below", "left", "right"]
NUMBERS = ["a", "two", "three", "four"]

WORDS = {
    "circle": ["circle", "circle", "disk"], "square": ["square", "square", "box"],
    "triangle": ["triangle"], "star": ["star"], "heart": ["heart"],
    "purple": ["purple", "purple", "violet"],
    "striped": ["striped"], "dotted": ["dotted", "dotted", "spotted"],
    "small": ["small", "small", "little"], "large": ["large", "big"],
    "above": ["above", "above", "over", "on top of"],
    "below": ["below", "below", "under", "beneath", "underneath"],
    "left": ["left of", "to the left of", "on the left of"],
    "right": ["right of", "to the right of", "on the right of"],
}  # fmt: skip
PLURALS = {"box": "boxes"}


@dataclass(frozen=True)
class Group:
    """Equal shapes."""

    count: int
    color: str
    shape: str
    texture: str = "plain"
    size: str = "any"


@dataclass(frozen=True)
class Scene:
    """One group, or two of which the first is `relation` the second."""

    groups: tuple[Group, ...]
    relation: str | None = None


@dataclass
class Drawn:
    """A scene with the places of its shapes: for each group (x, y, radius) from 0 to 1."""

    scene: Scene
    places: list[list[tuple[float, float, float]]] = field(default_factory=list)


def is_held_out(scene: Scene) -> bool:
    """Whether no training picture shows it: a tenth of all pairs of groups, and six kinds of
    textured shape."""
    textured = {("striped", "red", "star"), ("striped", "green", "heart"), ("striped", "purple", "circle"),
                ("dotted", "blue", "triangle"), ("dotted", "yellow", "square"), ("dotted", "orange", "heart")}  # fmt: skip
    if any((g.texture, g.color, g.shape) in textured for g in scene.groups):
        return True
    if len(scene.groups) < 2:
        return False
    first, second = scene.groups
    colors, n = list(COLORS), len(SHAPES)
    key = [colors.index(g.color) * n + SHAPES.index(g.shape) for g in (first, second)]
    return (key[0] * 7 + key[1] * 11 + RELATIONS.index(scene.relation) * 3 + first.count + second.count) % 10 == 0


def random_scene(rng: np.random.Generator, held_out: bool = False) -> Scene:
    """A scene that is held out, or one that is not."""
    while True:
        pair = rng.random() < 0.75
        groups = tuple(
            Group(
                count=int(rng.integers(1, 4 if pair else 5)),
                color=str(rng.choice(list(COLORS))),
                shape=str(rng.choice(SHAPES)),
                texture=str(rng.choice(TEXTURES, p=[0.6, 0.2, 0.2])),
                size=str(rng.choice(SIZES, p=[0.7, 0.15, 0.15])),
            )
            for _ in range(2 if pair else 1)
        )
        scene = Scene(groups, str(rng.choice(RELATIONS)) if pair else None)
        same = pair and (groups[0].color, groups[0].shape) == (groups[1].color, groups[1].shape)
        if not same and is_held_out(scene) == held_out:
            return scene


def altered(scene: Scene, rng: np.random.Generator) -> Scene:
    """A scene that differs from another in one thing."""
    while True:
        groups, relation = list(scene.groups), scene.relation
        i = int(rng.integers(len(groups)))
        kind = str(rng.choice(["count", "color", "shape", "texture", "size"] + ["relation"] * (2 * (relation is not None))))
        if kind == "relation":
            relation = str(rng.choice(RELATIONS))
        else:
            values = {"count": range(1, 4 if relation else 5), "color": list(COLORS), "shape": SHAPES, "texture": TEXTURES, "size": SIZES}[kind]
            groups[i] = replace(groups[i], **{kind: values[int(rng.integers(len(values)))]})
        other = Scene(tuple(groups), relation)
        if other != scene:
            return other


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """A sentence for a scene: the plainest one, or one of the many that say the same."""

    def word(key: str) -> str:
        choices = WORDS.get(key, [key])
        return choices[0] if rng is None else str(rng.choice(choices))

    def chance(probability: float) -> bool:
        return rng is not None and rng.random() < probability

    def phrase(group: Group) -> str:
        shape = word(group.shape)
        if group.count > 1:
            shape = PLURALS.get(shape, shape + "s")
        adjectives = [word(group.size)] if group.size != "any" else []
        colored = [word(group.color)]
        suffix = ""
        if group.texture != "plain":
            if chance(0.15):
                suffix = " with " + {"striped": "stripes", "dotted": "dots"}[group.texture]
            else:
                colored.insert(1 if chance(0.3) else 0, word(group.texture))
        words = [*adjectives, *colored, shape]
        number = NUMBERS[group.count - 1]
        if number == "a":
            number = "one" if chance(0.2) else "an" if words[0][0] in "aeiou" else "a"
        return " ".join([number, *words]) + suffix

    text = phrase(scene.groups[0])
    if scene.relation:
        how = word(scene.relation)
        if chance(0.06):
            how = "and"
        elif scene.relation in ("left", "right") and chance(0.08):
            how = str(rng.choice(["beside", "next to"]))
        text = f"{text} {how} {phrase(scene.groups[1])}"
    if chance(0.06):
        text = str(rng.choice(["a picture of ", "an image of "])) + text
    return text


def _radii(shape: str, count: int = 720) -> np.ndarray:
    """The distance of a shape's outline from its center, by the angle from the right, clockwise."""
    angles = np.arange(count) / count * 2 * np.pi
    if shape == "circle":
        return np.full(count, 1.0)
    if shape == "heart":
        t = np.linspace(0, 2 * np.pi, 400)
        x = 16 * np.sin(t) ** 3 / 16
        y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
        corners = np.stack([x, y + 0.12], 1) * 1.08
    elif shape == "star":
        turns = -np.pi / 2 + np.arange(10) * np.pi / 5
        lengths = np.where(np.arange(10) % 2 == 0, 1.2, 0.5)
        corners = np.stack([np.cos(turns), np.sin(turns)], 1) * lengths[:, None]
    elif shape == "triangle":
        turns = -np.pi / 2 + np.arange(3) * 2 * np.pi / 3
        corners = np.stack([np.cos(turns), np.sin(turns)], 1) * 1.22 + [0, 0.12]
    else:
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.9
    ends = np.roll(corners, -1, 0)
    direction = np.stack([np.cos(angles), np.sin(angles)], 1)
    # Where a ray from the center crosses an edge.
    edge = ends - corners
    cross = direction[:, None, 0] * edge[None, :, 1] - direction[:, None, 1] * edge[None, :, 0]
    cross = np.where(np.abs(cross) < 1e-9, 1e-9, cross)
    along = (corners[:, 0] * edge[:, 1] - corners[:, 1] * edge[:, 0]) / cross
    part = (corners[None, :, 0] * direction[:, None, 1] - corners[None, :, 1] * direction[:, None, 0]) / cross
    hits = np.where((along > 0) & (part >= -1e-6) & (part <= 1 + 1e-6), along, 0)
    return hits.max(1)


_RADII = {shape: _radii(shape) for shape in SHAPES}


def _arranged(group: Group, region: tuple[float, float, float, float], alone: bool, rng: np.random.Generator):
    """Places of a group's shapes in a region (left, top, right, bottom), which do not touch."""
    left, top, right, bottom = region
    factor = {"any": rng.uniform(0.88, 1.04), "small": rng.uniform(0.6, 0.68), "large": rng.uniform(1.18, 1.26)}[group.size]
    radius = ([0.26, 0.19, 0.165, 0.155] if alone else [0.165, 0.14, 0.118])[group.count - 1] * factor
    reach = radius * 1.22 + 0.015
    if alone:
        for _ in range(400):
            places = [(rng.uniform(left + reach, right - reach), rng.uniform(top + reach, bottom - reach)) for _ in range(group.count)]
            apart = min((math.dist(p, q) for i, p in enumerate(places) for q in places[:i]), default=1)
            if apart > 2 * reach:
                break
        else:
            places = [(0.27 + 0.46 * (i % 2), 0.27 + 0.46 * (i // 2)) for i in range(group.count)]
    else:
        # A row along the longer side.
        wide = right - left > bottom - top
        start, end, low, high = (left, right, top, bottom) if wide else (top, bottom, left, right)
        room = (end - start - 2 * reach * group.count) / (group.count + 1)
        gaps = rng.dirichlet(np.full(group.count + 1, 3.0)) * (end - start - 2 * reach * group.count) if room > 0 else np.full(group.count + 1, room)
        places, at = [], start
        for i in range(group.count):
            at += gaps[i] + reach
            other = np.clip(rng.normal((low + high) / 2, 0.03), low + reach, max(low + reach, high - reach))
            places.append((at, other) if wide else (other, at))
            at += reach
    return [(float(x), float(y), float(radius)) for x, y in places]


def drawn(scene: Scene, rng: np.random.Generator) -> Drawn:
    """Chooses the places of a scene's shapes."""
    if len(scene.groups) == 1:
        return Drawn(scene, [_arranged(scene.groups[0], (0.02, 0.02, 0.98, 0.98), True, rng)])
    cut = rng.uniform(0.46, 0.54)
    halves = [(0.02, 0.02, 0.98, cut), (0.02, cut, 0.98, 0.98)]
    if scene.relation in ("left", "right"):
        halves = [(top, left, bottom, right) for left, top, right, bottom in halves]
    if scene.relation in ("below", "right"):
        halves.reverse()
    return Drawn(scene, [_arranged(g, half, False, rng) for g, half in zip(scene.groups, halves, strict=True)])


def picture(scene: Drawn, rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """The picture of a scene, [side, side, 3] uint8."""
    fine = side * 2
    tint = rng.uniform(0, 1, 3)
    paper = 255 * (1 - rng.uniform(0.01, 0.09) * tint / tint.max())
    canvas = np.broadcast_to(paper.astype(np.float32), (fine, fine, 3)).copy()
    for group, places in zip(scene.scene.groups, scene.places, strict=True):
        color = np.array(COLORS[group.color], np.float32) * rng.uniform(0.93, 1.04) + rng.normal(0, 5, 3)
        for x, y, radius in places:
            _stamp(canvas, group, color.astype(np.float32), (x * fine, y * fine, radius * fine), rng)
    small = canvas.reshape(side, 2, side, 2, 3).mean((1, 3))
    return np.clip(small + 0.5, 0, 255).astype(np.uint8)


def _stamp(canvas, group, color, place, rng):
    x, y, radius = place
    fine = len(canvas)
    reach = radius * 1.3 + 2
    left, right = max(0, int(x - reach)), min(fine, int(x + reach) + 1)
    top, bottom = max(0, int(y - reach)), min(fine, int(y + reach) + 1)
    ys, xs = np.mgrid[top:bottom, left:right].astype(np.float32)
    dx, dy = (xs + 0.5 - x) / radius, (ys + 0.5 - y) / radius
    turn = rng.uniform(-0.14, 0.14)
    dx, dy = dx * math.cos(turn) + dy * math.sin(turn), dy * math.cos(turn) - dx * math.sin(turn)
    distance = np.sqrt(dx * dx + dy * dy)
    radii = _RADII[group.shape]
    at = (np.arctan2(dy, dx) / (2 * np.pi) * len(radii)).astype(int) % len(radii)
    inside = (radii[at] - distance) * radius
    cover = np.clip(inside + 0.5, 0, 1)[..., None]
    outline = np.clip(inside - 0.02 * fine + 0.5, 0, 1)[..., None]
    fill = color * (1.06 - 0.1 * np.clip(dy, -1, 1)[..., None])
    light = 0.25 * fill + 0.75 * 252
    if group.texture == "striped":
        period = max(0.55, 0.085 * fine / radius)
        wave = np.sin((dx + dy) / period * 2 * np.pi / 1.414)[..., None] * period * radius / 4
        fill = fill + (light - fill) * np.clip(wave + 0.5, 0, 1)
    elif group.texture == "dotted":
        period = max(0.62, 0.1 * fine / radius)
        u, v = dx / period, dy / period
        u = u + 0.5 * (np.floor(v) % 2)
        away = np.sqrt((u - np.floor(u) - 0.5) ** 2 + (v - np.floor(v) - 0.5) ** 2)[..., None]
        fill = fill + (light - fill) * np.clip((0.3 - away) * period * radius + 0.5, 0, 1)
    edge = color * 0.62
    ink = edge + (fill - edge) * outline
    part = canvas[top:bottom, left:right]
    part += (ink - part) * cover


if __name__ == "__main__":
    import sys

    from PIL import Image

    rng = np.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    sheet = np.full((6 * 68, 8 * 68, 3), 255, np.uint8)
    for i in range(48):
        scene = random_scene(rng)
        print(caption(scene, rng))
        row, column = divmod(i, 8)
        sheet[row * 68 : row * 68 + 64, column * 68 : column * 68 + 64] = picture(drawn(scene, rng), rng)
    Image.fromarray(sheet).resize((8 * 68 * 2, 6 * 68 * 2), 0).save(sys.argv[1])

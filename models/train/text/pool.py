"""Draws training pictures: python pool.py FOLDER [--count 100000] [--workers 2].

A folder gets pictures.npy, [N, 64, 64, 3] uint8, and scenes.pickle, a list of `scenes.Scene`.
"""

import argparse
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
from scenes import drawn, picture, random_scene

PART = 1000


def _part(arguments):
    seed, held_out = arguments
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng, held_out) for _ in range(PART)]
    return scenes, np.stack([picture(drawn(scene, rng), rng) for scene in scenes])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--held-out", action="store_true", help="scenes that training never shows")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    parts = args.count // PART
    pictures = np.lib.format.open_memmap(
        args.folder / "pictures.npy", mode="w+", dtype=np.uint8, shape=(parts * PART, 64, 64, 3)
    )
    scenes = []
    seeds = [((args.seed, int(args.held_out), i), args.held_out) for i in range(parts)]
    with multiprocessing.Pool(args.workers) as pool:
        for i, (some, drawn_) in enumerate(pool.imap(_part, seeds)):
            pictures[i * PART : (i + 1) * PART] = drawn_
            scenes.extend(some)
    pictures.flush()
    (args.folder / "scenes.pickle").write_bytes(pickle.dumps(scenes))


if __name__ == "__main__":
    main()

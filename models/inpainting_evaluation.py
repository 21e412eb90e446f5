"""Measures inpainting through the `eddy` binary and writes `../docs/inpainting.md` and `../docs/inpainting.jpg`: `evaluate.py --inpainting`.

The middle 256x256 pixels of scikit-image's astronaut, coffee and chelsea, which took part in nothing else. *Scratches* are three lines of 3 pixels and eight
discs of 3 to 6 pixels' radius, *blocks* four squares of 24. OpenCV's Telea and Navier-Stokes get a radius of 5. PSNR is over the missing pixels alone; that the others are unchanged is
asserted.
"""

import subprocess
import tempfile
from pathlib import Path

import cv2
import numpy as np
import skimage.data

DOCS = Path(__file__).parent.parent / "docs"
NAMES = ("astronaut", "coffee", "chelsea")
DRAWS = 4


def middle(name):
    picture = getattr(skimage.data, name)()
    y, x = (picture.shape[0] - 256) // 2, (picture.shape[1] - 256) // 2
    return cv2.cvtColor(picture[y : y + 256, x : x + 256], cv2.COLOR_RGB2BGR)


def masks(rng):
    scratches, blocks = np.zeros((2, 256, 256), np.uint8)
    for _ in range(8):
        cv2.circle(scratches, [int(v) for v in rng.integers(12, 244, 2)], int(rng.integers(3, 7)), 255, -1)
    for _ in range(3):
        a, b = rng.integers(0, 256, (2, 2)).tolist()
        cv2.line(scratches, a, b, 255, 3)
    for y, x in ((40, 60), (150, 30), (60, 170), (170, 160)):
        blocks[y : y + 24, x : x + 24] = 255
    return {"scratches": scratches, "blocks": blocks}


def drawn(eddy, picture, mask, draws):
    with tempfile.TemporaryDirectory() as folder:
        cv2.imwrite(f"{folder}/in.png", picture)
        cv2.imwrite(f"{folder}/mask.png", mask)
        words = [eddy, "inpaint", f"{folder}/in.png", "--mask", f"{folder}/mask.png", "-o", f"{folder}/out.png", "--draws", draws, "--quiet"]
        subprocess.run([str(word) for word in words], check=True)
        return cv2.imread(f"{folder}/out.png")


def main(eddy):
    methods = {
        "OpenCV, Telea": lambda picture, mask: cv2.inpaint(picture, mask, 5, cv2.INPAINT_TELEA),
        "OpenCV, Navier-Stokes": lambda picture, mask: cv2.inpaint(picture, mask, 5, cv2.INPAINT_NS),
        "eddy --draws 1": lambda picture, mask: drawn(eddy, picture, mask, 1),
        f"eddy --draws {DRAWS}": lambda picture, mask: drawn(eddy, picture, mask, DRAWS),
    }
    figures, strips = {}, []
    for name in NAMES:
        truth = middle(name)
        for kind, mask in masks(np.random.default_rng(11)).items():
            hole = mask > 0
            damaged = truth.copy()
            damaged[hole] = 255
            results = [damaged]
            for method, fill in methods.items():
                result = fill(damaged, mask)
                assert (result[~hole] == truth[~hole]).all(), (name, kind, method)
                error = np.mean((result[hole].astype(float) - truth[hole]) ** 2)
                figures[name, kind, method] = 10 * np.log10(255**2 / error)
                results.append(result)
            if kind == "blocks":
                strips.append(np.hstack([results[0], results[1], results[3], results[4], truth]))
    cv2.imwrite(str(DOCS / "inpainting.jpg"), np.vstack(strips), [cv2.IMWRITE_JPEG_QUALITY, 88])
    columns = [(name, kind) for kind in ("scratches", "blocks") for name in NAMES]
    head = "| | " + " | ".join(f"{kind}: {name}" for name, kind in columns) + " | mean |\n" + "|---" * (len(columns) + 2) + "|\n"
    rows = ""
    for method in methods:
        values = [figures[name, kind, method] for name, kind in columns]
        rows += f"| {method} | " + " | ".join(f"{value:.2f}" for value in values) + f" | {np.mean(values):.2f} |\n"
    text = f"""# Inpainting

Written by `python models/evaluate.py --inpainting`; `eddy inpaint` as it is when nothing else is asked for (`prior`, ten steps, each four times, the mean of {DRAWS} draws), and one draw alone.

{__doc__.split(chr(10), 2)[2].strip()}

{head}{rows}
From left to right: what is missing, Telea, `eddy`, the mean of {DRAWS} draws, the truth.

![Squares missing of three photographs, and what OpenCV and Eddy draw there](inpainting.jpg)

A drawing is one of the pictures that could be there, and has up to twice the squared error of their mean, which `--draws` takes. Where there is nothing but smoothness, and in the middle of large holes, interpolation is hard to beat by this measure.
"""
    (DOCS / "inpainting.md").write_text(text)
    print(head + rows)

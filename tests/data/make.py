"""Makes the images of this folder from scikit-image's own samples: `pip install scikit-image==0.26.0` and run me here.

astronaut.png: Eileen Collins, NASA, public domain. coffee.png: Pikolo Espresso Bar, by Rachel Michetti, CC0.
chelsea.png: Chelsea the cat, by Stefan van der Walt, CC0. noisy-chelsea.png: the same with Gaussian noise of sigma 25
(8-bit units), rounded and clipped as a file's pixels are.
"""

from pathlib import Path

import numpy as np
from skimage import data, io

here = Path(__file__).parent
for name in ["astronaut", "coffee", "chelsea"]:
    io.imsave(here / f"{name}.png", getattr(data, name)(), check_contrast=False)
clean = data.chelsea().astype(np.float64)
noisy = clean + np.random.default_rng(25).normal(0.0, 25.0, clean.shape)
io.imsave(here / "noisy-chelsea.png", np.clip(np.rint(noisy), 0, 255).astype(np.uint8), check_contrast=False)

"""Makes the small images beside this file, with encoders that are not Eddy's.

    python3 -m pip install pillow>=11.3 numpy
    python3 tests/data/images/make.py

Pixel (x, y) of 48 x 40 is red 5 x, green 6 y, blue 2 (x + y), exactly or as nearly as the format allows;
that of `cmyk.jpg` is cyan 5 x, magenta 6 y, yellow 30, black 40.
"""

from pathlib import Path

import numpy
from PIL import Image, ImageCms

here = Path(__file__).parent
y, x = numpy.mgrid[0:40, 0:48]
picture = Image.fromarray(numpy.stack([5 * x, 6 * y, 2 * (x + y)], axis=-1).astype(numpy.uint8))
exif = Image.Exif()
exif[0x0112] = 6
profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
metadata = {"exif": exif.tobytes(), "icc_profile": profile}

picture.save(here / "progressive.jpg", quality=95, progressive=True, subsampling=2, **metadata)
picture.save(here / "restart.jpg", quality=95, restart_marker_blocks=2, **metadata)
picture.save(here / "lossy.webp", quality=95, **metadata)
picture.save(here / "lossless.webp", lossless=True, **metadata)
picture.save(here / "predictor.tiff", compression="tiff_lzw", icc_profile=profile, tiffinfo={274: 6, 317: 2})
inks = numpy.stack([5 * x, 6 * y, 30 + 0 * x, 40 + 0 * x], axis=-1).astype(numpy.uint8)
Image.fromarray(inks, mode="CMYK").save(here / "cmyk.jpg", quality=95)
for orientation in (5, 6):
    exif[0x0112] = orientation
    picture.save(here / f"turned-{orientation}.avif", quality=95, exif=exif.tobytes())
clear = picture.copy()
clear.putalpha(128)
clear.save(here / "clear.avif", quality=95)
picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(here / "palette.bmp")

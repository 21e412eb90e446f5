"""PSNR and speed of `denoise-fast` beside CBM3D and OpenCV's non-local means, on photographs that training never saw.

    python report.py --model ../denoise-fast/denoise-fast.onnx

Pictures are centre crops of scikit-image's astronaut, coffee and chelsea. The noise is seeded and Gaussian, in float, not clipped and
not rounded; OpenCV takes 8 bits alone, so it gets the noisy picture rounded and clipped. Every result is clipped to [0, 1] before
PSNR = -10 log10(mean squared error over pixels and channels). Every method is told sigma.
"""

import argparse
import math
import time

import bm3d
import cv2
import numpy as np
import onnxruntime
import skimage.data

SIGMAS = (15, 25, 50)
NLM_STRENGTH = 0.6  # h / sigma; the best of 0.4 to 1.2 at each sigma on two photographs that are not reported


def network(path, threads):
    """The ONNX file as a function of a picture [H, W, 3] and sigma in [0, 1] units."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])

    def denoise(noisy, sigma):
        x = np.ascontiguousarray(noisy.transpose(2, 0, 1)[None], np.float32)
        return session.run(None, {"x": x, "sigma": np.full_like(x[:, :1], sigma)})[0][0].transpose(1, 2, 0)

    denoise(np.zeros((64, 64, 3), np.float32), 0.1)
    return denoise


def cbm3d(noisy, sigma):
    return bm3d.bm3d_rgb(noisy, sigma)


def non_local_means(noisy, sigma):
    eight_bits = np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8)
    h = NLM_STRENGTH * sigma * 255
    return cv2.fastNlMeansDenoisingColored(eight_bits, None, h, h, 7, 21).astype(np.float32) / 255


def centre(picture, size):
    """The centre of a picture, size x size, or the largest whole multiple of 8 for size 0."""
    height, width = (size, size) if size else (side // 8 * 8 for side in picture.shape[:2])
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width, :3].astype(np.float64) / 255


def psnr(result, clean):
    return -10 * math.log10(np.mean((np.clip(result, 0, 1) - clean) ** 2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="../denoise-fast/denoise-fast.onnx", help="the ONNX file")
    parser.add_argument("--crop", type=int, default=256, help="height and width of the centre crop, a multiple of 8; 0: the whole picture")
    parser.add_argument("--threads", type=int, default=2, help="threads of ONNX Runtime and OpenCV")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
    parser.add_argument("--pictures", nargs="+", default=["astronaut", "coffee", "chelsea"], help="names in skimage.data")
    parser.add_argument("--without-cbm3d", action="store_true", help="leave out CBM3D, which takes minutes on whole pictures")
    args = parser.parse_args()
    cv2.setNumThreads(args.threads)
    methods = {"denoise-fast": network(args.model, args.threads), "CBM3D": cbm3d, "OpenCV NLM": non_local_means}
    if args.without_cbm3d:
        del methods["CBM3D"]
    pictures = {name: centre(getattr(skimage.data, name)(), args.crop) for name in args.pictures}
    scores = {name: [] for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    print("| picture | sigma | noisy | " + " | ".join(methods) + " |")
    print("|---|---|---|" + "---|" * len(methods))
    for name, clean in pictures.items():
        for level in SIGMAS:
            rng = np.random.default_rng([args.seed, level])
            noisy = clean + level / 255 * rng.standard_normal(clean.shape)
            for method, denoise in methods.items():
                start = time.perf_counter()
                result = denoise(noisy, level / 255)
                seconds[method] += time.perf_counter() - start
                scores[method].append(psnr(result, clean))
            print(f"| {name} | {level} | {psnr(noisy, clean):.2f} | " + " | ".join(f"{s[-1]:.2f}" for s in scores.values()) + " |", flush=True)
    megapixels = len(SIGMAS) * sum(p.shape[0] * p.shape[1] for p in pictures.values()) / 1e6
    for i, level in enumerate(SIGMAS):
        print(f"| mean | {level} | | " + " | ".join(f"{np.mean(s[i :: len(SIGMAS)]):.2f}" for s in scores.values()) + " |")
    print("| **mean** | all | | " + " | ".join(f"**{np.mean(s):.2f}**" for s in scores.values()) + " |")
    print("| seconds a megapixel | | | " + " | ".join(f"{seconds[m] / megapixels:.2f}" for m in methods) + " |")


if __name__ == "__main__":
    main()

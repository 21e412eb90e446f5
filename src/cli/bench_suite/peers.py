"""Measures Python's onnxruntime or OpenCV for `eddy bench --suite`, and prints one JSON object.

onnxruntime NETWORK WIDTH HEIGHT SECONDS THREADS: the median time of evaluations on random inputs of that size
opencv FRAME WIDTH HEIGHT SECONDS: that of fastNlMeansDenoisingColored on a frame of 8-bit RGB
"""

import json
import statistics
import sys
import time


def median_ms(work, seconds, rounds):
    work()  # allocates and warms up
    times, started = [], time.perf_counter()
    while len(times) < rounds or time.perf_counter() - started < seconds:
        begun = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times)


def measure_onnxruntime(network, width, height, seconds, threads):
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    random = numpy.random.default_rng(0)
    feeds = {}
    for port in session.get_inputs():
        channels = port.shape[1] if len(port.shape) > 1 else 1
        shape = [1, channels, int(height), int(width)][: len(port.shape)]
        feeds[port.name] = random.random(shape, numpy.float32)
    ms = median_ms(lambda: session.run(None, feeds), float(seconds), 1 if float(seconds) == 0 else 3)
    return {"ms": ms, "version": onnxruntime.__version__}


def measure_opencv(frame, width, height, seconds):
    import cv2
    import numpy

    image = numpy.fromfile(frame, numpy.uint8).reshape(int(height), int(width), 3)
    ms = median_ms(lambda: cv2.fastNlMeansDenoisingColored(image, None, 10, 10, 7, 21), float(seconds), 1)
    return {"ms": ms, "version": cv2.__version__}


def main(kind, *arguments):
    try:
        measure = {"onnxruntime": measure_onnxruntime, "opencv": measure_opencv}[kind]
        print(json.dumps(measure(*arguments)))
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": error.name}))


main(*sys.argv[1:])

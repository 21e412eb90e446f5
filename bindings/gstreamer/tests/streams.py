"""Frames in GStreamer's buffers, and pipelines that are fed with them and read from Python."""

import hashlib
import random

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstVideo", "1.0")
gi.require_version("GstApp", "1.0")
from gi.repository import Gst, GstVideo  # noqa: E402

Gst.init(None)

# GStreamer's name of a format: ffmpeg's name, bytes per sample, and the planes, each as what its row has for a width and
# how many rows it has for a height.
HALF = lambda side: (side + 1) // 2  # noqa: E731
FULL = lambda side: side  # noqa: E731
FORMATS = {
    "NV12": ("nv12", 1, [(FULL, FULL), (lambda width: 2 * HALF(width), HALF)]),
    "I420": ("yuv420p", 1, [(FULL, FULL), (HALF, HALF), (HALF, HALF)]),
    "YUY2": ("yuyv422", 1, [(lambda width: 4 * HALF(width), FULL)]),
    "Y42B": ("yuv422p", 1, [(FULL, FULL), (HALF, FULL), (HALF, FULL)]),
    "Y444": ("yuv444p", 1, [(FULL, FULL)] * 3),
    "GRAY8": ("gray", 1, [(FULL, FULL)]),
    "RGB": ("rgb24", 1, [(lambda width: 3 * width, FULL)]),
    "BGR": ("bgr24", 1, [(lambda width: 3 * width, FULL)]),
    "I420_10LE": ("yuv420p10le", 2, [(FULL, FULL), (HALF, HALF), (HALF, HALF)]),
    "GRAY16_LE": ("gray16le", 2, [(FULL, FULL)]),
}
SECOND = Gst.SECOND


def planes(format, width, height):
    """Bytes per row, and rows, of each plane."""
    _, size, parts = FORMATS[format]
    return [(size * row(width), rows(height)) for row, rows in parts]


def noisy(format, width, height, count, seed=0):
    """Frames of a still scene with noise, with rows that follow each other."""
    chance = random.Random(seed)
    noise = [round(chance.gauss(0, 6)) for _ in range(1 << 14)]
    size = FORMATS[format][1]
    frames = []
    for _ in range(count):
        frame = bytearray()
        for row, rows in planes(format, width, height):
            at = chance.randrange(1 << 13)
            for y in range(rows):
                values = [80 + (x + y) // 4 % 80 + noise[(at + y * 331 + x) % len(noise)] for x in range(row // size)]
                if size == 1:
                    frame += bytes(values)
                else:
                    more = 200 if format == "GRAY16_LE" else 4
                    frame += b"".join((more * value).to_bytes(2, "little") for value in values)
        frames.append(bytes(frame))
    return frames


def caps(format, width, height, more=""):
    return f"video/x-raw,format={format},width={width},height={height},framerate=10/1{more}"


def buffer_of(frame, text, index=0, pad=0):
    """A buffer with a frame; with `pad`, rows are that much further apart than by default, and planes begin later."""
    info = GstVideo.VideoInfo.new_from_caps(Gst.Caps.from_string(text))
    format, width, height = info.finfo.name, info.width, info.height
    data, offsets, strides, at = bytearray(), [], [], 0
    for plane, (row, rows) in enumerate(planes(format, width, height)):
        if pad:
            start, stride = len(data) + 3 * pad, row + pad
        else:
            start, stride = info.offset[plane], info.stride[plane]
        data += bytes(start - len(data))
        offsets.append(start)
        strides.append(stride)
        for _ in range(rows):
            data += frame[at : at + row] + bytes([0xEE] * (stride - row))
            at += row
    data += bytes(max(0, info.size - len(data)))
    buffer = Gst.Buffer.new_wrapped(bytes(data))
    if pad:
        fill = [0] * (4 - len(offsets))
        GstVideo.buffer_add_video_meta_full(
            buffer, 0, info.finfo.format, width, height, len(offsets), offsets + fill, strides + fill
        )
    buffer.pts, buffer.duration, buffer.offset = index * SECOND // 10, SECOND // 10, 1000 + index
    return buffer


def digests(frames):
    """The frames in short, for comparisons."""
    return [hashlib.sha256(frame).hexdigest()[:12] for frame in frames]


def frame_of(sample):
    """The frame of a sample, with rows that follow each other."""
    info = GstVideo.VideoInfo.new_from_caps(sample.get_caps())
    buffer = sample.get_buffer()
    meta = GstVideo.buffer_get_video_meta(buffer)
    offsets, strides = (meta.offset, meta.stride) if meta else (info.offset, info.stride)
    data = buffer.extract_dup(0, buffer.get_size())
    frame = bytearray()
    for plane, (row, rows) in enumerate(planes(info.finfo.name, info.width, info.height)):
        for y in range(rows):
            start = offsets[plane] + y * strides[plane]
            frame += data[start : start + row]
    return bytes(frame)


class Failed(Exception):
    """A pipeline has failed, with GStreamer's message."""


class Pipeline:
    """A pipeline from `appsrc` through an element to `appsink`, or one of another description."""

    def __init__(self, element, source="appsrc name=in format=time", sink="appsink name=out sync=false max-buffers=0"):
        self.pipeline = Gst.parse_launch(f"{source} ! {element} ! {sink}")
        self.input, self.output = (self.pipeline.get_by_name(name) for name in ("in", "out"))
        self.bus = self.pipeline.get_bus()
        self.messages = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pipeline.set_state(Gst.State.NULL)

    def start(self, state=Gst.State.PLAYING):
        if self.pipeline.set_state(state) == Gst.StateChangeReturn.FAILURE:
            self.check()
            raise Failed("the state was not reached")

    def check(self):
        """Collects messages, and raises an error among them."""
        while message := self.bus.pop():
            if message.type == Gst.MessageType.ERROR:
                raise Failed(message.parse_error()[0].message)
            self.messages.append(message)

    def push(self, text, buffers):
        self.input.set_property("caps", Gst.Caps.from_string(text))
        for buffer in buffers:
            self.input.emit("push-buffer", buffer)

    def pull(self, seconds=60):
        """The next sample; none at the end."""
        for _ in range(10 * seconds):
            self.check()
            sample = self.output.emit("try-pull-sample", SECOND // 10)
            if sample or self.output.get_property("eos"):
                self.check()
                return sample
        raise Failed("nothing came")

    def rest(self):
        samples = []
        while sample := self.pull():
            samples.append(sample)
        self.check()
        return samples

    def end(self):
        self.input.emit("end-of-stream")

    def structures(self):
        """The messages of the element."""
        elements = (message for message in self.messages if message.type == Gst.MessageType.ELEMENT)
        return [message.get_structure() for message in elements]


def process(element, text, frames, pad=0):
    """The samples that an element makes of frames."""
    with Pipeline(element) as pipeline:
        pipeline.start()
        pipeline.push(text, [buffer_of(frame, text, index, pad) for index, frame in enumerate(frames)])
        pipeline.end()
        return pipeline.rest()

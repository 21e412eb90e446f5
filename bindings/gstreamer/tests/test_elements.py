"""The elements, compared with the binary on the same frames. `run.sh` runs this."""

import os
import pathlib
import random
import resource
import subprocess
import tempfile
import threading
import time
import unittest

from streams import FORMATS, Failed, Gst, GstVideo, Pipeline, SECOND, buffer_of, caps, digests, frame_of, noisy, process

BINARY = os.environ["EDDY_BINARY"]
MODELS = pathlib.Path(os.environ["EDDY_REPOSITORY"]) / "tests/data/models"
WINDOW = MODELS / "window.onnx"


def binary(command, format, width, height, frames, *options):
    """The frames that the binary makes of these."""
    with tempfile.TemporaryDirectory() as place:
        source, result = pathlib.Path(place, "in.raw"), pathlib.Path(place, "out.raw")
        source.write_bytes(b"".join(frames))
        name = FORMATS[format][0]
        full = ["--range", "full"] if name.startswith("gray") else []
        size = ["--size", f"{width}x{height}", "--pixel-format", name, "--fps-in", "10"]
        run = [BINARY, command, source, "-o", result, "--device", "cpu", *size, *full, *options]
        done = subprocess.run(run, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        data = result.read_bytes()
        scale = 2 if command == "upscale" else 1
        length = len(data) // len(frames)
        assert length == sum(len(frame) for frame in noisy(format, scale * width, scale * height, 1)), length
        return [data[at : at + length] for at in range(0, len(data), length)]


class Frames(unittest.TestCase):
    def test_denoises_every_format_as_the_binary_does(self):
        for format in FORMATS:
            for width, height, pad in [(64, 48, 0), (67, 41, 0), (67, 41, 5)]:
                frames = noisy(format, width, height, 3)
                with self.subTest(format=format, width=width, pad=pad):
                    samples = process("eddydenoise temporal=true device=cpu", caps(format, width, height), frames, pad)
                    expected = binary("denoise", format, width, height, frames, "--temporal")
                    self.assertEqual(digests(map(frame_of, samples)), digests(expected))
                    self.assertNotEqual(digests(expected), digests(frames))

    def test_enlarges_as_the_binary_does(self):
        for format in ["I420", "NV12", "RGB", "GRAY8"]:
            frames = noisy(format, 37, 23, 2)
            samples = process("eddyupscale device=cpu", caps(format, 37, 23), frames)
            info = GstVideo.VideoInfo.new_from_caps(samples[0].get_caps())
            self.assertEqual((info.width, info.height), (74, 46))
            expected = binary("upscale", format, 37, 23, frames)
            self.assertEqual(digests(map(frame_of, samples)), digests(expected), format)

    def test_keeps_the_color_of_enlarged_frames(self):
        # Frames of 720 rows are of BT.709 by default, and those of 360 are not.
        text = caps("I420", 64, 360)
        (sample,) = process("eddyupscale", text, noisy("I420", 64, 360, 1))
        before, after = (
            GstVideo.VideoInfo.new_from_caps(found) for found in (Gst.Caps.from_string(text), sample.get_caps())
        )
        self.assertEqual(after.height, 720)
        self.assertEqual(after.colorimetry.to_string(), before.colorimetry.to_string())

    def test_properties_are_those_of_the_binary(self):
        frames = noisy("NV12", 240, 48, 2)
        for properties, options in [
            ("sigma=12,5 strength=0.5", ["--sigma", "12,5", "--strength", "0.5"]),
            ("sigma=9 steps=2 eta=0.7 seed=3", ["--sigma", "9", "--steps", "2", "--eta", "0.7", "--seed", "3"]),
            ("sigma=9 model=denoise-fast precision=int8", ["--sigma", "9", "-m", "denoise-fast", "--precision", "int8"]),
            ("sigma=9 tile=200 tile-overlap=160", ["--sigma", "9", "--tile", "200", "--tile-overlap", "160"]),
        ]:
            samples = process(f"eddydenoise device=cpu {properties}", caps("NV12", 240, 48), frames)
            expected = binary("denoise", "NV12", 240, 48, frames, "--temporal=off", *options)
            self.assertEqual(digests(map(frame_of, samples)), digests(expected), properties)

    def test_keeps_time_stamps(self):
        for element in ["eddydenoise", "eddyupscale", f"eddydenoise model={WINDOW}"]:
            format = "RGB" if "model" in element else "I420"
            samples = process(element, caps(format, 32, 32), noisy(format, 32, 32, 4))
            buffers = [sample.get_buffer() for sample in samples]
            stamps = [(buffer.pts, buffer.duration, buffer.offset) for buffer in buffers]
            expected = [(index * SECOND // 10, SECOND // 10, 1000 + index) for index in range(4)]
            self.assertEqual(stamps, expected, element)

    def test_denoises_fields_as_the_binary_does(self):
        frames = noisy("I420", 64, 48, 2)
        text = caps("I420", 64, 48, ",interlace-mode=interleaved,field-order=top-field-first")
        head = b"YUV4MPEG2 W64 H48 F10:1 It C420mpeg2\n"
        stream = head + b"".join(b"FRAME\n" + frame for frame in frames)
        run = [BINARY, "denoise", "-", "-o", "-", "--device", "cpu", "-q"]
        done = subprocess.run(run, input=stream, capture_output=True, check=True).stdout
        done = done[done.index(b"\n") + 1 :]
        length = len(frames[0])
        expected = [done[at + 6 : at + 6 + length] for at in range(0, len(done), 6 + length)]
        samples = process("eddydenoise device=cpu", text, frames)
        self.assertEqual(digests(map(frame_of, samples)), digests(expected))
        whole = process("eddydenoise device=cpu", caps("I420", 64, 48), frames)
        self.assertNotEqual(digests(map(frame_of, whole)), digests(expected))


class Streams(unittest.TestCase):
    def test_gives_the_frames_that_a_window_holds_back(self):
        frames = noisy("RGB", 24, 24, 5)
        text = caps("RGB", 24, 24)
        samples = process(f"eddydenoise model={WINDOW} device=cpu", text, frames)
        expected = binary("denoise", "RGB", 24, 24, frames, "-m", WINDOW)
        self.assertEqual(digests(map(frame_of, samples)), digests(expected))
        # And before a change of the size.
        small = caps("RGB", 16, 16)
        with Pipeline(f"eddydenoise model={WINDOW} device=cpu") as pipeline:
            pipeline.start()
            for size, text in [(24, text), (16, small)]:
                frames = noisy("RGB", size, size, 3)
                pipeline.push(text, [buffer_of(frame, text, index) for index, frame in enumerate(frames)])
            pipeline.end()
            widths = [sample.get_caps().get_structure(0).get_int("width")[1] for sample in pipeline.rest()]
        self.assertEqual(widths, [24] * 3 + [16] * 3)

    def test_starts_again_for_other_caps(self):
        kinds = [("NV12", 64, 48), ("NV12", 80, 40), ("RGB", 32, 32)]
        alone, together = [], []
        for kind in kinds:
            alone += [frame_of(s) for s in process("eddydenoise temporal=true", caps(*kind), noisy(*kind, 3))]
        with Pipeline("eddydenoise temporal=true") as pipeline:
            pipeline.start()
            for kind in kinds:
                pipeline.push(caps(*kind), [buffer_of(frame, caps(*kind)) for frame in noisy(*kind, 3)])
            pipeline.end()
            together = [frame_of(sample) for sample in pipeline.rest()]
        self.assertEqual(digests(together), digests(alone))

    def test_a_seek_begins_anew(self):
        source = "videotestsrc pattern=snow num-buffers=30 ! video/x-raw,format=NV12,width=64,height=48"
        sink = "appsink name=out sync=false max-buffers=1"
        for element in ["eddydenoise temporal=true", f"videoconvert ! eddydenoise model={WINDOW}"]:
            with Pipeline(element, source, sink) as pipeline:
                pipeline.start()
                first = [pipeline.pull().get_buffer().pts for _ in range(4)]
                for _ in range(3):
                    flags = Gst.SeekFlags.FLUSH | Gst.SeekFlags.ACCURATE
                    self.assertTrue(pipeline.pipeline.seek_simple(Gst.Format.TIME, flags, 0))
                    again = [pipeline.pull().get_buffer().pts for _ in range(4)]
                    self.assertEqual(again, first)

    def test_settings_change_while_it_runs(self):
        text = caps("NV12", 64, 48)
        frames = noisy("NV12", 64, 48, 2)
        with Pipeline("eddydenoise name=eddy sigma=0") as pipeline:
            pipeline.start()
            results = []
            for sigma in ["0", "15", "nonsense"]:
                pipeline.pipeline.get_by_name("eddy").set_property("sigma", sigma)
                pipeline.push(text, [buffer_of(frames[0], text)])
                results.append(frame_of(pipeline.pull()))
            # What is wrong changes nothing.
            self.assertEqual(digests(results[:1]), digests(frames[:1]))
            self.assertNotEqual(digests(results[1:2]), digests(frames[:1]))
            self.assertEqual(digests(results[2:]), digests(results[1:2]))
            pipeline.check()
            warnings = [m.parse_warning()[0].message for m in pipeline.messages if m.type == Gst.MessageType.WARNING]
            self.assertTrue(any("sigma=nonsense: expected auto" in warning for warning in warnings), warnings)

    def test_posts_quality_and_figures(self):
        text = caps("NV12", 64, 48)
        with Pipeline("eddydenoise name=eddy fps=1000") as pipeline:
            pipeline.start()
            pipeline.push(text, [buffer_of(frame, text, i) for i, frame in enumerate(noisy("NV12", 64, 48, 40))])
            pipeline.end()
            self.assertEqual(len(pipeline.rest()), 40)
            time.sleep(0.2)
            pipeline.check()
            structures = pipeline.structures()
            qualities = [s.to_string() for s in structures if s.get_name() == "eddy-quality"]
            figures = [s for s in structures if s.get_name() == "eddy-statistics"][-1]
            self.assertIn("model=(string)camera", qualities[0])
            self.assertEqual(figures.get_uint64("frames")[1], 40)
            self.assertGreater(figures.get_double("sigma")[1], 1.0)
            of_property = pipeline.pipeline.get_by_name("eddy").get_property("statistics")
            self.assertEqual(of_property.get_uint64("frames")[1], 40)

    def test_reports_latency_and_keeps_up(self):
        source = "videotestsrc is-live=true pattern=snow ! video/x-raw,format=NV12,width=640,height=480,framerate=60/1"
        element = "eddydenoise model=denoise steps=4 deadline-ms=80 name=eddy"
        with Pipeline(element, source, "fakesink sync=true qos=true name=out") as pipeline:
            pipeline.start()
            pipeline.pipeline.get_state(20 * SECOND)
            time.sleep(6)
            pipeline.check()
            query = Gst.Query.new_latency()
            self.assertTrue(pipeline.pipeline.query(query))
            is_live, least, _ = query.parse_latency()
            self.assertTrue(is_live)
            self.assertGreaterEqual(least, 80 * Gst.MSECOND)
            figures = pipeline.pipeline.get_by_name("eddy").get_property("statistics")
            self.assertGreater(figures.get_uint64("frames")[1], 10)
            # It began with less than four steps where it knew that these take too long.
            is_reduced = "4 steps" not in figures.get_string("quality")
            self.assertTrue(is_reduced or figures.get_uint64("quality-changes")[1] > 0, figures.to_string())


class Ends(unittest.TestCase):
    def fails(self, element, text, *words, state=Gst.State.PAUSED):
        with self.assertRaises(Failed) as raised, Pipeline(element) as pipeline:
            pipeline.start(state)
            format = text.split("format=")[1].split(",")[0]
            pipeline.push(text, [buffer_of(noisy(format, 32, 32, 1)[0], text)])
            pipeline.pipeline.set_state(Gst.State.PLAYING)
            pipeline.pull()
        for word in words:
            self.assertIn(word, str(raised.exception))

    def test_errors_say_what_to_do(self):
        text = caps("I420", 32, 32)
        for element, *words in [
            ("eddydenoise sigma=much", "sigma=much", "expected auto"),
            ("eddydenoise model=nothing", "no bundled model", "denoise-fast"),
            ("eddydenoise model=upscale-x2", "upscale-x2", "its task is upscale"),
            ("eddydenoise precision=f64", "precision=f64", "int8"),
            ("eddydenoise device=tpu", "device=tpu", "cuda"),
            ("eddydenoise device=cuda", "cuda:0", "runtime"),
            ("eddydenoise max-memory=much", "max-memory=much", "512M"),
            ("eddydenoise threads=100000", "threads is 100000"),
            ("eddydenoise noise-profile=/nowhere.toml", "/nowhere.toml"),
            ("eddydenoise noise-profile=/nowhere.toml sigma=3", "expected one of them"),
            ("eddydenoise max-memory=1M", "max-memory"),
            ("eddyupscale scale=3", "scale=2 or scale=4"),
            ("eddyupscale model=upscale-x2 scale=4", "enlarges 2 times"),
            ("eddyupscale model=camera", "camera"),
        ]:
            with self.subTest(element=element):
                self.fails(element, text, *words)
        interlaced = caps("I420", 32, 32, ",interlace-mode=interleaved")
        self.fails("eddyupscale", interlaced, "interlaced", "deinterlace")
        self.fails(f"eddydenoise model={WINDOW}", caps("RGB", 32, 32, ",interlace-mode=interleaved"), "interlaced")
        self.fails("eddydenoise", caps("I420", 32, 32, ",interlace-mode=mixed"), "interlaced", "deinterlace")
        self.fails("eddydenoise", caps("I420", 32, 30, ",interlace-mode=interleaved"), "multiple of 4", "deinterlace")

    def test_a_wrong_buffer_is_an_error(self):
        text = caps("I420", 32, 32)
        with self.assertRaises(Failed) as raised, Pipeline("eddydenoise") as pipeline:
            pipeline.start()
            pipeline.push(text, [Gst.Buffer.new_wrapped(bytes(100))])
            pipeline.pull()
        self.assertIn("a buffer of 100 bytes", str(raised.exception))

    def test_rows_that_lie_outside_a_buffer_are_an_error(self):
        text = caps("NV12", 64, 48)
        size = 64 * 48 * 3 // 2
        for strides, offsets in [
            ((1 << 30, 64), (0, 64 * 48)),
            ((128, 128), (0, 64 * 48)),
            ((64, 64), (0, 64 * 48 + 1)),
            ((0, 0), (0, 64 * 48)),
            ((-64, 64), (64 * 47, 64 * 48)),
        ]:
            buffer = Gst.Buffer.new_wrapped(bytes(size))
            planes = [[*offsets, 0, 0], [*strides, 0, 0]]
            GstVideo.buffer_add_video_meta_full(buffer, 0, GstVideo.VideoFormat.NV12, 64, 48, 2, *planes)
            with self.subTest(strides=strides), self.assertRaises(Failed) as raised, Pipeline("eddydenoise") as pipeline:
                pipeline.start()
                pipeline.push(text, [buffer])
                pipeline.pull()
            self.assertIn("bytes apart", str(raised.exception))

    def test_the_scale_of_a_run_does_not_outlive_it(self):
        text = caps("NV12", 16, 16)
        with Pipeline("eddyupscale name=eddy") as pipeline:
            element = pipeline.pipeline.get_by_name("eddy")
            for properties, width in [((2, None), 32), ((4, None), 64), ((0, "upscale-x2"), 32), ((0, "upscale-x4"), 64)]:
                for name, value in zip(("scale", "model"), properties):
                    element.set_property(name, value)
                expected = Gst.Caps.from_string(f"video/x-raw,width={width}")
                # Elements are linked before the start.
                self.assertTrue(element.get_static_pad("src").query_caps(None).can_intersect(expected), properties)
                pipeline.start()
                pipeline.push(text, [buffer_of(noisy("NV12", 16, 16, 1)[0], text)])
                self.assertEqual(pipeline.pull().get_caps().get_structure(0).get_int("width")[1], width, properties)
                pipeline.pipeline.set_state(Gst.State.NULL)
                pipeline.check()

    def test_ends_where_there_is_nothing(self):
        text = caps("NV12", 64, 48)
        for given in [None, []]:
            with Pipeline("eddydenoise") as pipeline:
                pipeline.start()
                if given is not None:
                    pipeline.push(text, given)
                pipeline.end()
                self.assertEqual(pipeline.rest(), [])
        for element in ["eddydenoise ! identity error-after=2", "eddydenoise ! identity eos-after=2"]:
            with Pipeline(element, "videotestsrc ! video/x-raw,width=64,height=48", "fakesink name=out") as pipeline:
                pipeline.start()
                ends = Gst.MessageType.EOS | Gst.MessageType.ERROR
                self.assertIsNotNone(pipeline.bus.timed_pop_filtered(20 * SECOND, ends), element)

    def test_survives_changes_from_all_sides(self):
        chance = random.Random(1)
        source = "videotestsrc pattern=snow ! capsfilter name=caps caps=video/x-raw,format=NV12,width=64,height=48"
        over = threading.Event()
        with Pipeline("eddydenoise name=eddy", source, "fakesink name=out sync=false") as pipeline:
            element, caps_of = (pipeline.pipeline.get_by_name(name) for name in ("eddy", "caps"))
            # GStreamer itself does not take seeks during a change of the state.
            lock = threading.Lock()

            def change():
                while not over.wait(chance.random() / 50):
                    element.set_property("sigma", chance.choice(["auto", "5", "3,4"]))
                    element.set_property("temporal", chance.random() < 0.5)
                    element.get_property("statistics").to_string()
                    pipeline.pipeline.query(Gst.Query.new_latency())
                    size = f"width={chance.randint(1, 80)},height={chance.randint(1, 80)}"
                    text = f"video/x-raw,format={chance.choice(['NV12', 'RGB', 'GRAY8'])},{size}"
                    caps_of.set_property("caps", Gst.Caps.from_string(text))
                    with lock:
                        pipeline.pipeline.seek_simple(Gst.Format.TIME, Gst.SeekFlags.FLUSH, 0)

            threads = [threading.Thread(target=change) for _ in range(2)]
            for thread in threads:
                thread.start()
            try:
                for _ in range(20):
                    states = [Gst.State.NULL, Gst.State.READY, Gst.State.PAUSED, Gst.State.PLAYING]
                    with lock:
                        pipeline.pipeline.set_state(chance.choice(states))
                    time.sleep(chance.random() / 3)
                    try:
                        pipeline.check()
                    except Failed as error:
                        # A capsfilter rejects the caps that its source has just chosen.
                        self.assertEqual(str(error), "Internal data stream error.")
            finally:
                over.set()
                for thread in threads:
                    thread.join()
            # It still works.
            pipeline.pipeline.set_state(Gst.State.NULL)
            pipeline.bus.set_flushing(True)
            pipeline.bus.set_flushing(False)
            pipeline.start()
            time.sleep(1)
            self.assertGreater(element.get_property("statistics").get_uint64("frames")[1], 0)

    def test_stops_within_a_frame(self):
        source = "videotestsrc ! video/x-raw,format=NV12,width=1280,height=720"
        with Pipeline("eddydenoise model=denoise sigma=20 steps=500 tile=128", source, "fakesink name=out") as pipeline:
            pipeline.start()
            time.sleep(2)
            for state in [Gst.State.READY, Gst.State.NULL]:
                begun = time.monotonic()
                pipeline.pipeline.set_state(state)
                self.assertLess(time.monotonic() - begun, 5)

    def test_does_not_grow(self):
        text = caps("NV12", 64, 48)
        frames = noisy("NV12", 64, 48, 2)
        with Pipeline("eddydenoise temporal=true") as pipeline:
            for cycle in range(25):
                pipeline.start()
                pipeline.push(text, [buffer_of(frame, text) for frame in frames])
                self.assertIsNotNone(pipeline.pull())
                pipeline.pipeline.set_state(Gst.State.NULL)
                pipeline.check()
                if cycle == 4:
                    before, threads = memory(), len(os.listdir("/proc/self/task"))
                    files = len(os.listdir("/proc/self/fd"))
        self.assertLess(memory() - before, 30 << 20)
        self.assertLessEqual(len(os.listdir("/proc/self/task")), threads + 2)
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), files)
        # Nor over many frames.
        source = "videotestsrc pattern=snow num-buffers=1500 ! video/x-raw,format=NV12,width=64,height=48"
        with Pipeline("eddydenoise temporal=true name=eddy", source, "fakesink name=out") as pipeline:
            pipeline.start()
            figures = lambda: pipeline.pipeline.get_by_name("eddy").get_property("statistics")  # noqa: E731
            while figures().get_uint64("frames")[1] < 200:
                time.sleep(0.05)
            before = memory()
            self.assertIsNotNone(pipeline.bus.timed_pop_filtered(120 * SECOND, Gst.MessageType.EOS))
            self.assertEqual(figures().get_uint64("frames")[1], 1500)
        self.assertLess(memory() - before, 10 << 20)

    def test_elements_run_side_by_side(self):
        frames = noisy("NV12", 64, 48, 3)
        expected = [frame_of(s) for s in process("eddydenoise temporal=true", caps("NV12", 64, 48), frames)]
        results = []

        def work():
            results.append([frame_of(s) for s in process("eddydenoise temporal=true", caps("NV12", 64, 48), frames)])

        threads = [threading.Thread(target=work) for _ in range(4)]
        for step in (threading.Thread.start, threading.Thread.join):
            for thread in threads:
                step(thread)
        self.assertEqual([digests(result) for result in results], [digests(expected)] * 4)


def memory():
    """Bytes of memory that this process has."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    unittest.main()

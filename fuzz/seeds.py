"""Makes the examples in `fuzz/corpus`: small valid files of every kind, from which the fuzzer starts.

    python3 -m pip install 'pillow>=11.3' numpy
    python3 fuzz/seeds.py

Needs ffmpeg for containers. Files that have the name of a hash were found by the fuzzer.
"""

import io
import json
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy
from PIL import Image, ImageCms

here = Path(__file__).parent
data = here.parent / "tests/data"
LARGEST = 4096


def seed(border, name, content):
    content = content.encode() if isinstance(content, str) else content
    if len(content) > LARGEST:
        print(f"{border}/{name} has {len(content)} bytes and is left out")
        return
    folder = here / "corpus" / border
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


y, x = numpy.mgrid[0:5, 0:7]
rgb = numpy.stack([30 * x, 40 * y, 20 * (x + y)], axis=-1).astype(numpy.uint8)
color = Image.fromarray(rgb)
clear = color.copy()
clear.putalpha(Image.fromarray((36 * x).astype(numpy.uint8)))
gray = color.convert("L")
deep = Image.fromarray((9000 * x + 30 * y).astype(numpy.uint16))
exif = Image.Exif()
exif[0x0112], exif[0x0100], exif[0x0101] = 6, 7, 5
exif.get_ifd(0x8769)[0xA002] = 7
# A profile of a few bytes, whose content is not read.
profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()[:132]
metadata = {"exif": exif.tobytes(), "icc_profile": profile}


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


palette = color.convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
for name, image in {
    "rgb": color, "rgba": clear, "gray": gray, "gray-alpha": clear.convert("LA"), "gray16": deep,
    "palette": palette, "bits": gray.convert("1"),
}.items():
    seed("png", name, encoded(image, "png"))
seed("png", "metadata", encoded(color, "png", dpi=(300, 300), **metadata))
seed("png", "animation", encoded(color, "png", save_all=True, append_images=[clear]))
seed("png", "transparent-color", encoded(palette, "png", transparency=3))


def ffmpeg(*arguments, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{suffix}"
        subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments, path], check=True)
        return path.read_bytes()


source = ("-f", "lavfi", "-i", "testsrc=size=16x16:rate=5")
seed("png", "interlaced", ffmpeg("-f", "lavfi", "-i", "testsrc=size=7x5", "-frames:v", "1", "-pix_fmt", "rgb48be", suffix=".png"))

for name, image, options in [
    ("rgb", color, {"quality": 90}), ("gray", gray, {}), ("cmyk", color.convert("CMYK"), {}),
    ("progressive", color, {"progressive": True, "subsampling": 2}),
    ("restart", color, {"restart_marker_blocks": 1}),
    ("metadata", color, {"dpi": (300, 200), "optimize": True, **metadata}),
]:
    seed("jpeg", name, encoded(image, "jpeg", **options))
for name, image, options in [
    ("lossy", color, {"quality": 60}), ("lossless", color, {"lossless": True}), ("alpha", clear, {"quality": 60}),
    ("metadata", color, {"lossless": True, **metadata}),
    ("animation", color, {"save_all": True, "append_images": [clear]}),
]:
    seed("webp", name, encoded(image, "webp", **options))
for name, image, options in [
    ("rgb", color, {}), ("rgba", clear, {}), ("gray", gray, {}), ("gray16", deep, {}), ("bits", gray.convert("1"), {}),
    ("cmyk", color.convert("CMYK"), {}), ("lzw", color, {"compression": "tiff_lzw", "tiffinfo": {317: 2}}),
    ("deflate", color, {"compression": "tiff_adobe_deflate"}), ("packbits", gray, {"compression": "packbits"}),
    ("jpeg", color, {"compression": "jpeg"}), ("fax", gray.convert("1"), {"compression": "group4"}),
    ("metadata", color, {"tiffinfo": {274: 6}, "icc_profile": profile}),
    ("pages", color, {"save_all": True, "append_images": [gray]}), ("big", color, {"big_tiff": True}),
]:
    seed("tiff", name, encoded(image, "tiff", **options))
for name, image in {"rgb": color, "rgba": clear, "gray": gray, "palette": palette, "bits": gray.convert("1")}.items():
    seed("bmp", name, encoded(image, "bmp"))
for name, image in {"rgb": color, "rgba": clear}.items():
    seed("qoi", name, encoded(image, "qoi"))
for name in ["png/bits", "png/rgba", "bmp/rgb", "qoi/rgba"]:
    seed("mask", name.replace("/", "-"), (here / "corpus" / name).read_bytes() + b"\x02\x03")

block = exif.tobytes()
seed("exif", "marked", block)
seed("exif", "little", block[6:] if block.startswith(b"Exif") else block)
entries = [(0x0100, 3, 1, 7 << 16), (0x0101, 4, 1, 5), (0x0112, 3, 1, 6 << 16), (0x8769, 4, 1, 62)]
directory = struct.pack(">H", len(entries)) + b"".join(struct.pack(">HHII", *entry) for entry in entries) + struct.pack(">I", 0)
inner = struct.pack(">H", 2) + struct.pack(">HHII", 0xA002, 3, 1, 7 << 16) + struct.pack(">HHII", 0xA003, 4, 1, 5) + bytes(4)
seed("exif", "big", b"MM\0*\0\0\0\x08" + directory + inner)


def box(kind, *bodies):
    body = b"".join(bodies)
    return struct.pack(">I", len(body) + 8) + kind + body


properties = [
    box(b"ispe", struct.pack(">III", 0, 16, 8)), box(b"irot", b"\1"), box(b"imir", b"\1"), box(b"colr", b"nclx"),
]
alpha = box(b"auxC", b"\0\0\0\0urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0")
for kind in [b"avif", b"heic", b"avis", b"msf1"]:
    for name, more in [("", []), ("-alpha", [alpha])]:
        meta = box(b"meta", bytes(4), box(b"hdlr", b"pict"), box(b"iprp", box(b"ipco", *properties, *more)))
        seed("heif", kind.decode() + name, box(b"ftyp", kind, bytes(4)) + meta)
jpeg_2000 = b"\xff\x4f\xff\x51" + struct.pack(">HHIIII", 41, 0, 16, 8, 0, 0) + bytes(20)
seed("heif", "jpeg2000", jpeg_2000)
seed("heif", "jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + jpeg_2000)

for name, header, size in [
    ("420", "W4 H2 F25:1 Ip A1:1 C420jpeg", 12), ("odd", "W5 H3 F30000:1001 It C420mpeg2", 27),
    ("422p10", "W4 H2 C422p10 XCOLORRANGE=FULL", 32), ("444", "W3 H2 F0:0 Im C444 XEDDY=1-1-9", 18),
    ("mono16", "W4 H2 Cmono16 XOTHER=1", 16), ("old", "W2 H2 XYSCSS=420PALDV", 6),
]:
    frames = b"".join(b"FRAME" + tag + b"\n" + bytes(range(i, i + size)) for i, tag in enumerate([b"", b" Ip"]))
    seed("y4m", name, f"YUV4MPEG2 {header}\n".encode() + frames)
    seed("y4m", name + "-torn", f"YUV4MPEG2 {header}\n".encode() + frames[:-2])
for line, size in [
    ("4 2 nv12", 12), ("5 3 yuyv422 30 bt709 full", 36), ("4 2 rgb24 29.97 bt601 limited", 24), ("2 2 bgr48le", 24),
    ("4 2 gray10le 25 fcc", 16), ("3 3 yuv444p12le", 54), ("4 4 yuv420p", 24),
]:
    seed("raw", line.split()[2], line.encode() + b"\n" + bytes(range(2 * size)))

for suffix, codec in [
    (".avi", "rawvideo"), (".mp4", "mpeg4"), (".mkv", "ffv1"), (".ts", "mpeg2video"), (".flv", "flv"), (".gif", "gif"),
    (".asf", "mpeg4"), (".mpg", "mpeg1video"), (".ivf", "vp8"), (".ogg", "theora"), (".m2ts", "mpeg2video"),
    (".h264", "libx264"),
]:
    options = ["-frames:v", "2", "-c:v", codec]
    if suffix == ".avi":
        options += ["-pix_fmt", "gray", "-vf", "scale=8:8"]
    if suffix == ".asf":
        options += ["-packet_size", "512"]
    rate = ["-r", "25"] if codec.startswith("mpeg") else []
    seed("container", suffix[1:], ffmpeg(*source, *options, *rate, suffix=suffix))
fragmented = ["-frames:v", "2", "-c:v", "mpeg4", "-movflags", "frag_keyframe+empty_moov"]
seed("container", "fragmented", ffmpeg(*source, *fragmented, suffix=".mp4"))
seed("container", "dv", b"\x1f\x07\0\0" + bytes(96))
report = {
    "streams": [{
        "width": 16, "height": 8, "pix_fmt": "yuv420p10le", "r_frame_rate": "30000/1001", "avg_frame_rate": "25/1",
        "color_space": "bt709", "color_transfer": "smpte2084", "color_primaries": "bt2020", "field_order": "tt",
        "chroma_location": "topleft", "sample_aspect_ratio": "10:11", "nb_frames": "12", "start_time": "0.04",
        "side_data_list": [{"rotation": -90}], "tags": {"ALPHA_MODE": "1"},
    }],
    "format": {"format_name": "matroska,webm", "start_time": "0.0", "duration": "1.5"},
    "packets": [{"pts_time": "0.0"}, {"pts_time": "0.04"}, {"pts_time": "0.3"}],
}
seed("probe", "mkv", json.dumps(report))
seed("probe", "mxf", json.dumps({"streams": [{"width": 2, "height": 2, "pix_fmt": "rgb24", "r_frame_rate": "0/0"}], "format": {"format_name": "mxf"}}))
seed("caps", "nv12", "video/x-raw, format=(string)NV12, width=(int)33, height=(int)17, framerate=(fraction)30000/1001, pixel-aspect-ratio=(fraction)10/11, interlace-mode=(string)interleaved, field-order=(string)bottom-field-first, chroma-site=(string)jpeg, colorimetry=(string)1:3:5:1")
seed("caps", "deep", "video/x-raw(memory:SystemMemory), format=I422_10LE, width=5, height=3, colorimetry=bt2020-10, interlace-mode=mixed")
seed("caps", "gray", 'video/x-raw, format="GRAY16_LE", width=1, height=1, framerate=0/1')


def npy(array, **options):
    file = io.BytesIO()
    numpy.lib.format.write_array(file, array, **options)
    return file.getvalue()


numbers = numpy.arange(12, dtype=numpy.float32).reshape(1, 3, 2, 2)
seed("npy", "f4", npy(numbers))
seed("npy", "f8-fortran", npy(numpy.asfortranarray(numbers.astype(numpy.float64))))
seed("npy", "version2", npy(numbers, version=(2, 0)))
seed("npy", "version3", npy(numbers[0], version=(3, 0)))
seed("npy", "integers", npy(numbers.astype(numpy.int32)))
seed("npy", "structured", npy(numpy.zeros(2, dtype=[("a", "<f4"), ("b", "<i2", (2,))])))

for manifest in sorted((here.parent / "models").glob("*/model.toml")):
    seed("manifest", manifest.parent.name, manifest.read_bytes())
seed("manifest", "everything", """name = "a"
version = "1"
task = "generate"
prediction = "epsilon"
channels = 4
range = [-1.0, 1.0]
multiple_of = 8
size = [64, 64]
license = "MIT"
description = "a"
classes = 10
null_class = 10
constants = { k = [1.0, 2.0] }
unconditional = { k = 0.0 }
[schedule]
num_train_timesteps = 1000
beta_schedule = "scaled_linear"
lambda_min_clipped = -inf
[decoder]
path = "d.onnx"
sha256 = "00"
channels = 3
scale = 8
scaling_factor = 0.18215
input = "latent_sample"
output = "sample"
[inputs]
sample = "sample"
timestep = "timestep"
class = "class_labels"
[outputs]
prediction = "out_sample"
[defaults]
steps = 20
sampler = "ddim"
guidance_scale = 4.0
[files.f32]
path = "m.onnx"
sha256 = "00"
tolerance = 0.001
""")
seed("manifest", "video", """name = "v"
version = "1"
task = "denoise"
prediction = "denoised"
channels = 3
range = [0.0, 1.0]
mean = [0.4, 0.4, 0.4]
std = 0.2
axes = "nhwc"
colors = "bgr"
residual = true
frames = 3
receptive_field = 20
border = 2
license = "MIT"
description = "a"
sigma = { min = 0.0, max = 0.3 }
noise_level = { factor = 255.0 }
states = [{ input = "h", output = "hn", channels = 8, divisor = 2 }]
inputs = { sample = "x", sigma = "s", neighbors = ["a", "b"] }
outputs = { prediction = "y" }
files.f16 = { path = "m.onnx", sha256 = "00" }
""".replace("std = 0.2", "std = [0.2]"))
seed("profile", "rgb", """version = 1
method = "frames"
frames = 8
width = 640
height = 480
color_model = "rgb"
""" + 3 * "[[channels]]\na = 1.2e-3\nb = 4.1e-5\nsignal = [0.02, 0.91]\n")
seed("profile", "gray", """version = 1
method = "image"
frames = 1
width = 64
height = 48
[[channels]]
a = 0
b = 1e-4
signal = [0.5, 0.5]
""".replace("a = 0\n", "a = 0.0\n"))

text = data / "pipelines/text/folders"
for number, file in enumerate(sorted([*text.rglob("*scheduler_config.json"), *data.glob("folders/*/scheduler/*.json")])):
    seed("scheduler", f"{file.parts[-3]}-{file.parts[-2]}", file.read_bytes())
seed("scheduler", "solver", json.dumps({
    "_class_name": "DPMSolverMultistepScheduler", "num_train_timesteps": 100, "trained_betas": None, "use_karras_sigmas": True,
    "sigma_min": 0.03, "sigma_max": 14.6, "final_sigmas_type": "sigma_min", "solver_order": 3, "solver_type": "heun",
    "algorithm_type": "sde-dpmsolver++", "lower_order_final": True, "euler_at_final": True, "lambda_min_clipped": -5.1,
    "thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 2.0, "disable_corrector": [0, 1],
    "timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction",
}).replace("-5.1", "-Infinity"))
seed("scheduler", "unipc-flow", json.dumps({
    "_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0,
}))
seed("scheduler", "flow", json.dumps({
    "_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting": True,
    "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096,
}))


def first(folder, *names):
    return next((json.dumps(json.loads((folder / name).read_text())) for name in names if (folder / name).exists()), "{}")


for folder in sorted(path for path in [*text.iterdir(), *data.glob("folders/*")] if (path / "model_index.json").exists()):
    parts = [
        first(folder, "model_index.json"), first(folder, "unet/config.json", "transformer/config.json"),
        first(folder, "vae_decoder/config.json", "movq/config.json", "vqvae/config.json"),
        first(folder, "scheduler/scheduler_config.json", "prior_scheduler/scheduler_config.json"),
    ]
    seed("folder", folder.name, "\0".join(parts))
for name in ["StableDiffusionInpaintPipeline", "LatentConsistencyModelPipeline", "StableDiffusionInstructPix2PixPipeline",
             "StableDiffusion3Pipeline", "PixArtAlphaPipeline", "IFSuperResolutionPipeline", "UnCLIPPipeline"]:
    index = {"_class_name": name, "unet": ["diffusers", "A"], "text_encoder": ["transformers", "B"]}
    part = {"in_channels": 4, "sample_size": 8, "block_out_channels": [4, 8], "embedding_dim": 4, "patch_size": 2}
    seed("folder", name, json.dumps(index) + "\0" + json.dumps(part) + "\0{\"latent_channels\": 4, \"scaling_factor\": 0.2}")
seed("pipeline", "two-stages", """name = "p"
main = 1
[[text]]
tokenizer = "tokenizer"
network = "text_encoder/model.onnx"
length = 77
layer = 1
is_projected = true
[embedding]
sequence = [[0]]
pooled = [0]
[[stages]]
network = "prior/model.onnx"
scheduler = "scheduler.json"
channels = 4
[[stages]]
network = "unet/model.onnx"
scheduler = "scheduler.json"
channels = 4
[decoder]
network = "vae/model.onnx"
scale = 8
channels = 4
factor = 0.18
shift = 0.0
""")


def token(number, content):
    return {"id": number, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def tokenizer(model, *, normalizer=None, splitter=None, processor=None, added=()):
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": list(added), "normalizer": normalizer,
        "pre_tokenizer": splitter, "post_processor": processor, "decoder": None, "model": model,
    })


letters = {letter: number for number, letter in enumerate(["<s>", "</s>", "<unk>", "a", "b", "r", "e", "d", "re", "red", "\u0120", "c"])}
bpe = {"type": "BPE", "unk_token": "<unk>", "continuing_subword_prefix": "", "end_of_word_suffix": "", "vocab": letters,
       "merges": ["r e", "re d"], "dropout": None, "fuse_unk": False, "byte_fallback": False}
roberta = {"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0], "trim_offsets": False, "add_prefix_space": False}
bytes_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
seed("tokenizer", "bpe", tokenizer(bpe, splitter=bytes_level, processor=roberta, added=[token(0, "<s>"), token(1, "</s>")]))
pieces = [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["\u2581", -2.0], ["a", -2.5], ["\u2581a", -1.5], ["red", -3.0], ["c", -4.0]]
trie = [0] * 256
trie[97] = 96 << 10 | 1 << 8 | 97
trie[1] = 1 << 31 | 0
charsmap = struct.pack("<257I", 1024, *trie) + b"b\0"
import base64  # noqa: E402
precompiled = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}
metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
template = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
}
unigram = {"type": "Unigram", "unk_id": 2, "vocab": pieces, "byte_fallback": False}
replace = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"}
strip = {"type": "Strip", "strip_left": True, "strip_right": True}
seed("tokenizer", "unigram", tokenizer(unigram, splitter=metaspace, processor=template,
     normalizer={"type": "Sequence", "normalizers": [strip, {"type": "NFKC"}, {"type": "Lowercase"}, replace, {"type": "Prepend", "prepend": "\u2581"}]}))
seed("tokenizer", "precompiled", tokenizer(unigram, splitter=metaspace, processor=template, normalizer=precompiled))
words = {"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
         "vocab": {**letters, "##d": 12}}
bert = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
seed("tokenizer", "wordpiece", tokenizer(words, normalizer=bert, splitter={"type": "BertPreTokenizer"},
     processor={"type": "BertProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0]}))
split = {"type": "Split", "pattern": {"Regex": "[a-z]+|[^\\s]"}, "behavior": "Isolated", "invert": False}
seed("tokenizer", "wordlevel", tokenizer({"type": "WordLevel", "vocab": letters, "unk_token": "<unk>"}, processor=template,
     splitter={"type": "Sequence", "pretokenizers": [split, {"type": "Digits", "individual_digits": True}, {"type": "Punctuation", "behavior": "Removed"}]}))


def field(number, body):
    return bytes([number << 3 | 2, len(body)]) + body


def piece(content, score, kind=1):
    return field(1, field(1, content.encode()) + b"\x15" + struct.pack("<f", score) + bytes([3 << 3, kind]))


kinds = {"<unk>": 2, "</s>": 3, "<pad>": 3}
model = b"".join(piece(content, score, kinds.get(content, 1)) for content, score in pieces)
seed("tokenizer", "spiece", b"s" + model + field(2, b"") + field(3, field(1, b"nmt_nfkc")))
small = struct.pack("<I", 0)
seed("tokenizer", "spiece-charsmap", b"s" + model + b"\x1a" + bytes([0x80 + (len(charsmap) + 3) % 128, (len(charsmap) + 3) // 128])
     + b"\x12" + bytes([0x80 + len(charsmap) % 128, len(charsmap) // 128]) + charsmap)
clip = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "a</w>": 3, "c": 4, "t</w>": 5, "at</w>": 6, "!": 7}
seed("tokenizer", "clip", "c" + json.dumps(clip) + "\0#version: 0.2\na t</w>\n\0" + json.dumps({"model_max_length": 16, "pad_token": {"content": "!"}}))

for name, prompt in [("plain", "a lighthouse in a storm"), ("weights", r"a ((red:1.3) cat:0.5), \(not:2\) (b) 10:30"), ("letters", "\u00e9\u4e00 \U0001f408 fi\u0301")]:
    seed("prompt", name, prompt)
for file in sorted((data / "models").glob("*.onnx")):
    seed("onnx", file.stem, file.read_bytes())


def external(length):
    pairs = b"".join(field(13, field(1, key) + field(2, value)) for key, value in [(b"location", b"w"), (b"offset", b"4"), (b"length", length)])
    tensor = bytes([8, 4, 16, 1]) + field(8, b"t") + pairs + bytes([14 << 3, 1])
    node = field(1, field(1, b"x") + field(2, b"y") + field(4, b"Relu") + field(5, field(1, b"value") + field(5, tensor)))
    shape = field(2, field(1, field(2, field(1, b"\x08\x01") + field(1, b"\x08\x03"))))
    graph = node + field(5, tensor) + field(11, field(1, b"sample") + shape) + field(12, field(1, b"y"))
    return bytes([8, 8]) + b"\x3a" + bytes([0x80 + len(graph) % 128, len(graph) // 128]) + graph + field(8, bytes([16, 17]))


seed("onnx", "external", external(b"4"))
seed("onnx", "external-beyond", external(b"400"))

tensor = {"name": "image", "shape": [1, 2, 3], "datatype": "UINT8", "data": [1, 2, 3, 4, 5, 6]}
binary = {"name": "image", "shape": [1, 2, 3], "datatype": "UINT16", "parameters": {"binary_data_size": 12}}
request = json.dumps({"id": "7", "inputs": [tensor], "parameters": {"sigma": 12}, "outputs": [{"name": "image", "parameters": {"binary_data": True}}]})
floats = json.dumps({"inputs": [{**tensor, "datatype": "FP32", "shape": [2, 1, 1, 3], "data": [[[[0, 0.5, 1]]], [[[1, 0, 2e-1]]]]}]})
head = json.dumps({"inputs": [binary], "parameters": {"binary_data_output": True}})
prompts = json.dumps({"inputs": [{"name": "prompt", "shape": [1], "datatype": "BYTES", "data": ["a cat"]}], "parameters": {"seed": 7, "size": "64x64"}})
seed("infer", "json", b"\0\0" + request.encode())
seed("infer", "floats", b"\0\0" + floats.encode())
seed("infer", "binary", struct.pack("<H", len(head)) + head.encode() + bytes(range(12)))
seed("infer", "prompt", b"\0\0" + prompts.encode())
generation = json.dumps({
    "prompt": "a cat", "model": "generate", "n": 2, "size": "64x48", "response_format": "b64_json", "output_format": "webp",
    "negative_prompt": "b", "seed": 7, "steps": 3, "sampler": "ddim", "eta": 0.5, "guidance_scale": 4.5, "user": "me",
})
seed("generations", "all", generation)
seed("query", "denoise", "/v1/denoise\nsigma=12%2C5&steps=3&strength=0.5&format=webp&jpeg-quality=80\nimage/webp;q=0.5, image/*")
seed("query", "infer", "/v2/models/a%20b/versions/1/infer\nscale=2&eta=1&seed=7+\n*/*")


def http(method, path, body=b"", *headers):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost:8071", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


image = (here / "corpus/png/rgb").read_bytes()
as_json = "Content-Type: application/json"
seed("http", "read", b"".join(http("GET", path) for path in ["/", "/metrics", "/v2", "/v2/models/denoise", "/v2/health/live", "/v1/models"]))
seed("http", "denoise", http("POST", "/v1/denoise?sigma=5&format=png", image, "Accept: image/png"))
seed("http", "upscale", http("PUT", "/v1/upscale?scale=2", (here / "corpus/jpeg/gray").read_bytes()))
seed("http", "infer", http("POST", "/v2/models/denoise/infer", request.encode(), as_json) + http("GET", "/v2/health/ready"))
seed("http", "binary", http("POST", "/v2/models/upscale/versions/1/infer", head.encode() + bytes(range(12)), f"Inference-Header-Content-Length: {len(head)}"))
seed("http", "generate", http("POST", "/v1/images/generations", generation.encode(), as_json))
seed("http", "index", http("POST", "/v2/repository/index", b'{"ready": true}'))
seed("http", "chunked", http("POST", "/v1/denoise", b"", "Transfer-Encoding: chunked") + b"4\r\nqoif\r\n0\r\n\r\n")
seed("http", "expect", http("POST", "/v1/denoise", b"BM", "Expect: 100-continue", "Connection: close"))
seed("preview", "read", b"".join(http("GET", path) for path in ["/", "/status", "/metrics", "/page.js"]))
seed("preview", "control", http("POST", "/control", b'{"sigma": 12.5, "steps": 2, "temporal": true}', as_json))
seed("preview", "auto", http("POST", "/control", b'{"sigma": "auto"}', as_json, "Authorization: Bearer a"))
for number, value in enumerate([
    "yuv420p10le", "29.97", "30000/1001", "bt709", "dpmpp-2m", "epsilon", "f16", "mjpeg", "cuda:1", "12,5", "auto", "0.5", "unix:/run/a",
    "127.0.0.1:80", "[::1]:80", "png", "frame2.png frame10.png frame02.png a1b2 a01b10",
]):
    seed("settings", f"value-{number}", value)
for name, line in {
    "denoise": "denoise in.png -o out.png --sigma 12,5 --steps 3 --strength 0.5 --tile 256 --max-memory 500M --seed 7",
    "stream": "denoise in.y4m -o out.mp4 --temporal --fps 30 --preview=8070 --reconnect 5 --encoder-options crf=20",
    "camera": "denoise /dev/video0 -o - --size 640x480 --pixel-format nv12 --matrix bt709 --rate 29.97",
    "generate": "generate -m folder --prompt a\\ cat --size 64x64 --steps 4 --sampler ddim --guidance-scale 3 -o out.png",
    "import": "import net.onnx -o folder --range 0,1", "serve": "serve -m a=denoise-fast --listen unix:/run/a --timeout 5",
    "help": "denoise --help", "version": "--version", "upscale": "upscale a.jpg b.jpg -o out/ -s 2 --device cuda:1 --threads 2",
    "inpaint": "inpaint a.png --mask m.png -o b.png --grow 3 --feather 2",
    "compile": "compile digits-ddpm -o a.onnx --steps 5 --sampler ddim", "sample": "sample digits-ddpm -i in.npy -o out.npy --sampler ddim --steps 2",
}.items():
    seed("arguments", name, line.replace("\\ ", "\1").replace(" ", "\n").replace("\1", " "))

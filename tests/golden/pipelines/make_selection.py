"""Copies from what make.py wrote the pipelines and runs that Eddy's tests take, and writes goldens of tokens.

    python make_selection.py --made FOLDER --out ../../data/pipelines/text

OUT/folders has each file once, under the first pipeline that has it; OUT/files.json says where the files of each
pipeline are: {"sdxl": {"tokenizer/vocab.json": "sd15/tokenizer/vocab.json", ...}, ...}. OUT/runs/NAME has what diffusers made, without the
trace. OUT/tokens.json has, for two tokenizers, the ids that transformers' fast tokenizers make of texts, padded and
cut to a length, and how many of them are no padding.
"""

import argparse
import hashlib
import json
import pathlib
import shutil

from transformers import CLIPTokenizerFast, T5Tokenizer

import make_tokens
import tokens

# Pipelines, those first that others share parts with, and their runs.
SELECTED = {
    "sd15": ["", "empty", "long", "rescale"],
    "sd15-ddim": [""],
    "sd15-euler": [""],
    "sd15-euler-ancestral": [""],
    "sd15-img2img": [""],
    "sd15-inpaint4": ["strength"],
    "sdxl": ["clip-skip", "no-negative"],
    "sdxl-img2img": [""],
    "pixart-sigma": [""],
    "flux-schnell": [""],
    "sana": ["", "no-instruction"],
    "if-base": [""],
    "x4-upscaler": ["", "noise-level"],
    "kandinsky22": ["negative"],
    "published-dit": ["", "no-guidance"],
    "sana-dpm": [""],
}
# Parts that none of these runs needs.
UNUSED = {"flux-schnell/vae_encoder", "sana/vae_encoder", "kandinsky22/vae_encoder", "x4-upscaler/vae_encoder"}


def copy_folders(made, out):
    """Copies each file once; returns, for each pipeline, the place of each of its files."""
    places, pipelines = {}, {}
    for name in SELECTED:
        folder = made / "folders" / name
        pipelines[name] = {}
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            file = path.relative_to(folder).as_posix()
            if f"{name}/{file.split('/')[0]}" in UNUSED:
                continue
            key = hashlib.sha256(path.read_bytes()).hexdigest()
            if key not in places:
                places[key] = f"{name}/{file}"
                target = out / "folders" / name / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
            pipelines[name][file] = places[key]
    return pipelines


def copy_runs(made, out):
    for name, labels in SELECTED.items():
        for label in labels:
            run = f"{name}+{label}" if label else name
            shutil.copytree(made / "ref" / run, out / "runs" / run, ignore=shutil.ignore_patterns("trace.npz"))


def goldens(made):
    """What the fast forms of CLIP's and T5's tokenizer make of texts."""
    clip, t5 = made / "folders/sd15/tokenizer", made / "folders/pixart-sigma/tokenizer"
    found = {}
    for part, fast, length in [
        (clip, CLIPTokenizerFast.from_pretrained(clip), 77),
        (t5, tokens.fast_of(T5Tokenizer.from_pretrained(t5, legacy=True)), 120),
    ]:
        texts = []
        for text in make_tokens.TEXTS:
            padded = fast(text, padding="max_length", max_length=length, truncation=True)
            texts.append({"text": text, "ids": padded["input_ids"], "count": sum(padded["attention_mask"])})
        found[str(part.relative_to(made / "folders"))] = {"length": length, "texts": texts}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--made", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    files = copy_folders(options.made, options.out)
    (options.out / "files.json").write_text(json.dumps(files, indent=1) + "\n", encoding="utf-8")
    copy_runs(options.made, options.out)
    text = json.dumps(goldens(options.made), ensure_ascii=True, separators=(",", ":"))
    (options.out / "tokens.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

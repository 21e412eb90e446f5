"""Small tokenizers: CLIP's from the first merges of its own list, T5's and Gemma's trained on Python's manual."""

import gzip
import io
import json
import pathlib
import pydoc_data.topics
import tempfile

import sentencepiece
import tokenizers
from transformers import CLIPTokenizer, CLIPTokenizerFast, GemmaTokenizerFast, T5Tokenizer, T5TokenizerFast
from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

CLIP_FULL = 49408
CLIP_SMALL = 2000


def clip_files(merges, folder, size=CLIP_SMALL):
    """Writes vocab.json and merges.txt with the first `size` - 514 merges of CLIP's list (a .txt.gz, header first).

    Entries in CLIP's order: 256 bytes, 256 bytes that end a word, one per merge, start and end of text.
    """
    lines = gzip.open(merges, "rt", encoding="utf-8").read().split("\n")[1 : size - 514 + 1]
    signs = list(bytes_to_unicode().values())
    entries = signs + [sign + "</w>" for sign in signs] + [line.replace(" ", "") for line in lines]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {entry: index for index, entry in enumerate(entries)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n", encoding="utf-8")


def clip(merges, size=CLIP_SMALL, pad="<|endoftext|>", fast=False):
    """CLIP's tokenizer of 77 tokens; SD 2 and SDXL's second pad with "!"."""
    kind = CLIPTokenizerFast if fast else CLIPTokenizer
    with tempfile.TemporaryDirectory() as place:
        clip_files(merges, pathlib.Path(place), size)
        files = f"{place}/vocab.json", f"{place}/merges.txt"
        return kind(*files, pad_token=pad, model_max_length=77)


def manual():
    """Plain English of about 700 KB that every Python has."""
    return "\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))


def spiece(size=1000):
    """A unigram model in sentencepiece's format, as T5's spiece.model: <pad>, </s>, <unk>, then pieces."""
    model = io.BytesIO()
    lines = [line.strip() for line in manual().split("\n") if line.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="unigram",
        vocab_size=size,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def t5(fast=True, size=1000):
    """T5's tokenizer: `fast` is saved with tokenizer.json, otherwise with spiece.model alone."""
    with tempfile.TemporaryDirectory() as place:
        path = pathlib.Path(place) / "spiece.model"
        path.write_bytes(spiece(size))
        settings = dict(extra_ids=20, model_max_length=512, legacy=True)
        if not fast:
            return T5Tokenizer(str(path), **settings)
        # Without add_prefix_space nothing goes before the first word, unlike in T5's own tokenizer.json; were it saved,
        # loading would want spiece.model.
        converted = T5TokenizerFast(str(path), add_prefix_space=True, **settings)
        for name in ("add_prefix_space", "from_slow"):
            converted.init_kwargs.pop(name, None)
        return converted


def gemma(size=1000):
    """Gemma's form: byte pairs, bytes for what is unknown, U+2581 for a space, <bos> in front."""
    trained = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trained.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
    trained.pre_tokenizer = tokenizers.pre_tokenizers.Split("\u2581", "merged_with_next")
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=specials + [f"<0x{value:02X}>" for value in range(256)],
        show_progress=False,
    )
    trained.train_from_iterator(manual().split("\n"), trainer)
    trained.pre_tokenizer = tokenizers.pre_tokenizers.Split(" ", "merged_with_previous")
    # What the trainer was given as special tokens are plain entries, but for the first four.
    described = json.loads(trained.to_str())
    described["added_tokens"] = described["added_tokens"][: len(specials)]
    trained = tokenizers.Tokenizer.from_str(json.dumps(described))
    trained.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)]
    )
    return GemmaTokenizerFast(tokenizer_object=trained, padding_side="right")


def fast_of(tokenizer):
    """The fast form of a tokenizer, which decides where the two differ."""
    if tokenizer is None or tokenizer.is_fast:
        return tokenizer
    kind = {"CLIPTokenizer": CLIPTokenizerFast, "T5Tokenizer": T5TokenizerFast}[type(tokenizer).__name__]
    with tempfile.TemporaryDirectory() as place:
        tokenizer.save_pretrained(place)
        converted = kind.from_pretrained(place)
        converted.name_or_path = ""
        return converted

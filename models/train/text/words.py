"""The vocabulary of captions, and its tokenizer in the format of the crate `tokenizers`."""

import json
import re

from networks import LENGTH
from scenes import COLORS, NUMBERS, PLURALS, SHAPES, TEXTURES, WORDS

PADDING, UNKNOWN = "[PAD]", "[UNK]"


def _vocabulary():
    words = {"an", "one", "and", "beside", "next", "to", "with", "stripes", "dots", "picture", "image", "of"}
    words |= {*NUMBERS, *COLORS, *TEXTURES[1:]}
    for key in [*WORDS, *SHAPES]:
        for phrase in WORDS.get(key, [key]):
            words |= set(phrase.split())
            if key in SHAPES:
                words.add(PLURALS.get(phrase, phrase + "s"))
    return [PADDING, UNKNOWN, *sorted(words)]


VOCABULARY = _vocabulary()
_IDS = {word: i for i, word in enumerate(VOCABULARY)}


def ids(text: str) -> list[int]:
    """The ids of a caption, padded to 20."""
    words = re.findall(r"\w+|[^\w\s]+", text.lower())
    found = [_IDS.get(word, 1) for word in words][:LENGTH]
    return found + [0] * (LENGTH - len(found))


def tokenizer() -> str:
    """A `tokenizer.json`."""
    special = [{"id": i, "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True} for i, word in enumerate(VOCABULARY[:2])]
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": _IDS, "unk_token": UNKNOWN},
    }, indent=1)  # fmt: skip


if __name__ == "__main__":
    print(len(VOCABULARY), VOCABULARY)

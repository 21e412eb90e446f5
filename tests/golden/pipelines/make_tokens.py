"""Writes the token ids of the fast tokenizers for difficult texts.

    python make_tokens.py --merges bpe_simple_vocab_16e6.txt.gz --out FOLDER

FOLDER/tokenizers has the tokenizers: `clip-sd1` and `clip-sd2` with CLIP's full vocabulary, padded with
`<|endoftext|>` and with `!`; `t5` with `tokenizer.json` and `t5-spiece` with `spiece.model` alone, of one small
vocabulary. FOLDER/tokens.json has, for each tokenizer and text, the ids as they are (`ids`), and padded and cut as
pipelines do (`padded`, `mask`); `slow` holds the slow tokenizer's padded ids where they differ.
"""

import argparse
import json
import pathlib

import tokens

TEXTS = [
    "",
    " ",
    "Hi there",
    "a photograph of an astronaut riding a horse",
    "A PHOTOGRAPH OF AN ASTRONAUT",
    "  leading and trailing spaces  ",
    "two  spaces and   three",
    "tab\tseparated\ttext",
    "line\nbreaks\r\nof both kinds",
    "café crème brûlée à la carte",
    "cafe\u0301 with a combining accent",
    "Ångström, naïve, coöperate, Þór, œuvre, straße, ŁÓDŹ",
    "İstanbul and ıspanak",
    "ﬁne ligatures: ﬂow, ﬃ",
    "full width ＡＢＣ １２３",
    "don't, can't, we'll, they've, I'm, she'd, it's, you're",
    "DON'T IT'S WE'LL",
    "rock'n'roll o'clock 'quoted' \u2018curly\u2019 \u201cdouble\u201d it\u2019s",
    "1234567890 3.14159 1,000,000 2026-11-26 10:30",
    "x2 4k 8K uhd f/1.8 35mm iso100",
    "half ½ squared ² Roman Ⅳ circled ③ Arabic-Indic ٣٤",
    "!!!",
    "!!! ??? ... --- ///",
    "wait...what?!?! no--way",
    "#hashtag @mention user@example.com https://example.com/a?b=c&d=e",
    "snake_case_name __init__ _",
    "kebab-case-name and C++ / C#",
    "(word:1.3)",
    "a (red:1.3) [blue] {green} ((car)) (sky, clouds:0.8)",
    "escaped \\(brackets\\)",
    "<b>bold</b> &amp; &lt;tag&gt; &quot;x&quot;",
    "<|startoftext|>",
    "<|endoftext|>",
    "before <|endoftext|> after",
    "</s> <pad> <unk> <extra_id_0>",
    "100% sure & $5 ~ €10 £20 ¥30",
    "a = b + c * d ^ e | f",
    "emoji 😀🚀🌈",
    "family 👨\u200d👩\u200d👧\u200d👦 and flag 🇩🇪 and skin 👍🏽",
    "zero\u200bwidth and zero\u200djoiner and soft\u00adhyphen",
    "no\u00a0break thin\u2009space ideographic\u3000space",
    "byte order mark \ufeffhere",
    "control \x00\x07\x1b characters",
    "replacement \ufffd character",
    "一只宇航员骑着马",
    "馬に乗る宇宙飛行士の写真",
    "말을 타고 있는 우주비행사",
    "космонавт верхом на лошади",
    "رائد فضاء يركب حصانًا",
    "घोड़े पर सवार अंतरिक्ष यात्री",
    "นักบินอวกาศขี่ม้า",
    "mixed 日本語 and English と emoji 🎌",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "a,b;c:d.e!f?g",
    "trending on artstation, 8k, (masterpiece), best quality, ultra-detailed",
    "Zalgo t̶̢̛e̸͎x̵̱t̴͇",
    "ｶﾀｶﾅ half width",
    "𝒻𝒶𝓃𝒸𝓎 𝕞𝕒𝕥𝕙",
    " ".join(f"word{index}" for index in range(200)),
    " ".join(["cat"] * 75),
    " ".join(["cat"] * 76),
]


def described(fast, slow, text, length):
    padded = fast(text, padding="max_length", max_length=length, truncation=True)
    entry = {
        "text": text,
        "ids": fast(text)["input_ids"],
        "padded": padded["input_ids"],
        "mask": padded["attention_mask"],
    }
    other = slow(text, padding="max_length", max_length=length, truncation=True)["input_ids"]
    return entry | ({"slow": other} if other != entry["padded"] else {})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--merges", type=pathlib.Path, required=True)
    options = parser.parse_args()
    pairs = {
        f"clip-{kind}": (
            tokens.clip(options.merges, tokens.CLIP_FULL, pad, fast=True),
            tokens.clip(options.merges, tokens.CLIP_FULL, pad),
            77,
        )
        for kind, pad in (("sd1", "<|endoftext|>"), ("sd2", "!"))
    }
    pairs["t5"] = tokens.t5(size=2000), tokens.t5(fast=False, size=2000), 128
    golden = {}
    for name, (fast, slow, length) in pairs.items():
        # CLIP's folders hold vocab.json and merges.txt, which the slow tokenizer writes.
        (fast if name == "t5" else slow).save_pretrained(options.out / "tokenizers" / name)
        entries = [described(fast, slow, text, length) for text in TEXTS]
        golden[name] = {"length": length, "texts": entries}
        print(f"{name}: {len(entries)} texts, {sum('slow' in entry for entry in entries)} of them otherwise when slow")
    slow.save_pretrained(options.out / "tokenizers" / "t5-spiece")
    with open(options.out / "tokens.json", "w", encoding="utf-8") as file:
        json.dump(golden, file, ensure_ascii=True, separators=(",", ":"))


if __name__ == "__main__":
    main()

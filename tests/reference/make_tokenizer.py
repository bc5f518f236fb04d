#!/usr/bin/env python3
"""Writes the tokenizer fixtures with llama.cpp as the reference.

  tokenizer.txt           items of mixed text, each ended by byte 0x1E (items contain newlines)
  tokenizer.smollm.bin    per item: uint16 count, then that many uint16 ids, little-endian
  tokenizer.gpt-2.bin     the same for every 8th item (0, 8, 16 ...), with the model's vocabulary under
  tokenizer.llama-bpe.bin   another pretokenizer: llama.cpp reads a copy of the file's metadata in which
                            only tokenizer.ggml.pre differs
  tokenizer.special.txt/.bin  the same two formats, for texts tokenised with parse_special

Usage: make_tokenizer.py   (see requirements.txt; QUIRE_MODEL names another file)
"""
import random
import struct
import tempfile
import unicodedata

from common import FIXTURES, model_path, open_llama, text_of

SEED = 20240611
ITEMS = 3600
END = b"\x1e"

CODE = r'''
#include <stdio.h>
static int gcd(int a, int b) { return b ? gcd(b, a % b) : a; }
for (size_t i = 0; i < n; ++i) { sum += x[i] * y[i]; /* dot */ }
	if (!ptr) goto cleanup;		// tabs	inside
def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)
    print(f"{name!r:>20} = {value:08.3f}", file=sys.stderr)
const f = async ({ a, b = [] }) => { await g(a ?? b?.[0]); };
<div class="card" data-id='42'><a href="https://example.org/?q=1&amp;r=2#top">x</a></div>
SELECT u.name, COUNT(*) FROM users u WHERE u.age >= 21 GROUP BY 1 HAVING COUNT(*) > 3;
{"id": 17, "tags": ["a", "b\n"], "ratio": -1.5e-09, "ok": true, "none": null}
grep -rnE '^[[:space:]]*#(if|endif)' src/ | sort -u > out.txt 2>&1
fn main() -> Result<(), Box<dyn Error>> { println!("{:?}", vec![1u8; 3]); Ok(()) }
0x7fff_ffff 0b1010 0o755 1e10 3.14159 1,234,567.89 192.168.0.1 v2.10.3-rc1
\begin{equation} \alpha_{i}^{2} + \sqrt{\beta} \le \int_0^1 f(x)\,dx \end{equation}
@@ -12,7 +12,9 @@ -    return -1; +    return fail(error);
'''.strip("\n").split("\n")

SENTENCES = [
    "I'm sure they'll say it's what we'd've done; don't you? She'S NOT 'round, y'all'd think.",
    "The cat sat on the mat -- twice! -- and then (of course) it left...",
    "Die Äpfel kosten 3,50 € je Kilo; Übermäßig süß sind sie größtenteils nicht.",
    "L'été dernier, à Besançon, j'ai goûté un gâteau très cher : « délicieux » !",
    "El niño comió mañana, ¿verdad? ¡Sí, señora!",
    "Żółta łódź płynęła wzdłuż brzegu; Příliš žluťoučký kůň pěl.",
    "Маяк стоит на маленьком острове, и каждый вечер смотритель зажигает лампу.",
    "Ο φάρος στέκει στο νησί και κάθε βράδυ ανάβει το φως του.",
    "灯塔建在岛上，每天晚上看守人都会点亮灯。距离港口十一海里。",
    "今天天气很好，我们去公园散步吧！價格是一百二十三元。",
    "灯台は島の東側に立っている。カタカナもひらがなも、ｶﾅも使う。",
    "등대는 섬의 동쪽에 서 있고 매일 저녁 불을 밝힌다.",
    "المنارة تقف على الجزيرة، ويشعل الحارس المصباح كل مساء. السعر ١٢٣٫٤٥",
    "המגדלור עומד על האי, והשומר מדליק את הפנס בכל ערב.",
    "प्रकाशस्तंभ द्वीप पर खड़ा है। मूल्य १२३ रुपये।",
    "ประภาคารตั้งอยู่บนเกาะ และคนเฝ้าจุดตะเกียงทุกเย็น ๑๒๓",
    "Ngọn hải đăng đứng trên đảo, và người gác đèn thắp sáng mỗi tối.",
    "Deniz feneri adada duruyor; İstanbul'da ığdır şöyle böyle.",
    "շատ լավ · ძალიან კარგი · በጣም ጥሩ · ძველი · ꦱꦸꦒꦼꦁ",
    "½ cup + ⅓ tsp, x² + y³ = z⁴, Ⅷ and ⅻ, ①②③, 五十六, ௧௨, 𝟘𝟙𝟚 𝔘𝔫𝔦",
    "🙂🙃 👩‍👩‍👧‍👦 👍🏽 🇩🇪🇯🇵 ❤️‍🔥 ☕️ ✈︎ 🏴‍☠️ 1️⃣2️⃣ ™©® ∑∏√∞≠≤",
    "naïve café cafe\u0301 n\u0303 A\u030a\u0323 ﬁ ﬀ ŉ ǆ ß ẞ",
    "zero\u200bwidth soft\u00adhyphen non\u00a0breaking \u2060joiner \ufeffbom \u202eabc\u202c",
]

SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", " \n", "\n ", "\t\t ", "\u00a0", "\u3000", "\u2003 ",
          "\v", "\f", "\u0085", "\u1680", "\u2028", "\u202f", "\r", " " * 17, "\n" * 6, " \t \n\t "]
PUNCTUATION = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["...", "--", "?!", "'s", "'LL", "'ve", "’s", "—", "…"]

# Scripts whose characters are assigned in every Unicode version that the reference may have been built with.
BLOCKS = [(0x21, 0x7E), (0xA1, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x531, 0x556), (0x5D0, 0x5EA),
          (0x620, 0x669), (0x904, 0x96F), (0xE01, 0xE5B), (0x10D0, 0x10FF), (0x1200, 0x1248), (0x1E00, 0x1EFF),
          (0x2010, 0x2027), (0x2070, 0x2189), (0x2190, 0x23FF), (0x2460, 0x24FF), (0x2600, 0x26FF),
          (0x3001, 0x30FF), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xFF01, 0xFFDC), (0x10000, 0x100FA),
          (0x1D400, 0x1D7FF), (0x1F300, 0x1F64F), (0x1F680, 0x1F6C5), (0x20000, 0x2A6D6)]


def random_characters(random_, count):
    first, last = random_.choice(BLOCKS)
    found = ""
    while len(found) < count:
        point = random_.randint(first, last)
        if unicodedata.category(chr(point)) != "Cn":
            found += chr(point)
    return found


def random_number(random_):
    digits = "".join(random_.choice("0123456789") for _ in range(random_.randint(1, 12)))
    return random_.choice(["{}", "{}.5", "-{}", "${}", "{}%", "0x{}", "{}th", " {} "]).format(digits)


def random_piece(random_, words):
    kind = random_.randrange(10)
    if kind < 4:
        word = random_.choice(words)
        return random_.choice([word, word.upper(), word.capitalize(), word + "'s"])
    if kind == 4:
        return random_number(random_)
    if kind == 5:
        return random_.choice(PUNCTUATION) * random_.randint(1, 3)
    if kind == 6:
        return random_.choice(random_.choice(SENTENCES).split(" "))
    if kind == 7:
        return random_characters(random_, random_.randint(1, 5))
    return random_.choice(SPACES)


def make_items():
    random_ = random.Random(SEED)
    prose = (text_of("handbook.txt") + b"\n" + text_of("letters.txt")).decode()
    words = prose.split()
    items = CODE + SENTENCES + [s.upper() for s in SENTENCES] + [s.lower() for s in SENTENCES]
    items += ["\n".join(CODE), prose[:1500], " ", "\n", "  ", "\t", "a", "'", "' s", "1", " 1", "12 345", "x" * 300,
              "ab" * 150, " " * 200, "9" * 70, "é" * 80, "<|im_start|>user\nHi<|im_end|>\n", "<|endoftext|>",
              "<|im_start", "<file_sep>x<|x|>"]
    while len(items) < ITEMS:
        pieces = [random_piece(random_, words) for _ in range(random_.randint(1, 6))]
        items.append(random_.choice(["", " "]).join(pieces))
    return [item.encode() for item in items]


SPECIAL = [
    "<|im_start|>system\nYou are terse.<|im_end|>\n<|im_start|>user\nWho built the tower?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "<|im_start|>", "a<|im_end|>b", " <|endoftext|> ", "<|endoftext|><|endoftext|>", "<|im_start", "|im_start|>",
    "<<|im_end|>>", "5<file_sep>'s", "<repo_name>org/x<file_sep>a.c\nint x;\n<|endoftext|>",
    "<reponame><filename><gh_stars>100<issue_start><issue_comment><issue_closed>",
    "<jupyter_start><jupyter_text>t<jupyter_code>c<jupyter_output>o<jupyter_script>s<empty_output>",
    "  <|im_start|>  \n\n<|im_end|>\n\n", "<|IM_START|>", "日本<|im_end|>語 🙂<|im_start|>🙃", "",
]


def write_ids(name, model, items, special):
    with open(FIXTURES / name, "wb") as out:
        for item in items:
            ids = model.tokenize(item, add_bos=False, special=special) if item else []
            out.write(struct.pack(f"<{1 + len(ids)}H", len(ids), *ids))


def with_pretokenizer(source, pre, target):
    """A copy of the file's metadata, without tensors, in which the pretokenizer is `pre`."""
    import gguf
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = pre if field.name == "tokenizer.ggml.pre" else field.contents()
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], inner)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    path = model_path()
    items = make_items()
    assert not any(END in item for item in items)
    (FIXTURES / "tokenizer.txt").write_bytes(b"".join(item + END for item in items))
    special = [item.encode() for item in SPECIAL]
    (FIXTURES / "tokenizer.special.txt").write_bytes(b"".join(item + END for item in special))
    model = open_llama(path, vocab_only=True)
    write_ids("tokenizer.smollm.bin", model, items, False)
    write_ids("tokenizer.special.bin", model, special, True)
    for pre in ("gpt-2", "llama-bpe"):
        with tempfile.NamedTemporaryFile(suffix=".gguf") as copy:
            with_pretokenizer(path, pre, copy.name)
            write_ids(f"tokenizer.{pre}.bin", open_llama(copy.name, vocab_only=True), items[::8], False)
    print(f"{len(items)} items, {sum(map(len, items))} bytes; seed {SEED}")


if __name__ == "__main__":
    main()

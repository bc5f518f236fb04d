#!/usr/bin/env python3
"""Writes the chat template fixture with jinja2 as the reference.

chat.txt holds records ended by byte 0x1E, of fields ended by byte 0x1F: Jinja source, BOS text, EOS text, "1"
with a generation prompt or "0", the rendered text, then role and content of each message. The first template
is the model file's own; the others write, in Jinja, the format of each family that examples/infer/chat.c knows.

Usage: make_chat.py   (see requirements.txt; QUIRE_MODEL names another file)
"""
import gguf
import jinja2

from common import FIXTURES, model_path

LLAMA3 = ("{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
          "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
          "{% endfor %}{% if add_generation_prompt %}"
          "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")
LLAMA2 = ("{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}"
          "{% set head = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
          "{% else %}{% set turns = messages %}{% set head = '' %}{% endif %}"
          "{% for m in turns %}{% if m['role'] == 'user' %}"
          "{{ bos_token + '[INST] ' + (head if loop.first else '') + m['content'].strip() + ' [/INST]' }}"
          "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}")
GEMMA = ("{{ bos_token }}{% for m in messages %}"
         "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + "
         "m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
         "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}")
GEMMA3 = ("{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
          "{% set first_user_prefix = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}"
          "{% else %}{% set first_user_prefix = '' %}{% set turns = messages %}{% endif %}{% for m in turns %}"
          "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + "
          "(first_user_prefix if loop.first else '') + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}")
ZEPHYR = ("{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + eos_token }}"
          "{% elif m['role'] == 'system' %}{{ '<|system|>\n' + m['content'] + eos_token }}"
          "{% else %}{{ '<|assistant|>\n' + m['content'] + eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}")
CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
          "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
# A default system message in a literal with escapes, behind a branch that builds one from variables.
CHATML_ESCAPED = ("{%- if tools %}{{- '<|im_start|>system\\n' }}{{- tools + '<|im_end|>\\n' }}{%- else %}"
                  "{%- if messages[0]['role'] != 'system' %}"
                  "{{- '<|im_start|>system\\nYou\\'re {terse}.<|im_end|>\\n' }}{%- endif %}{%- endif %}" + CHATML)

USER, ANSWER, AGAIN = ("user", "How tall is the tower?"), ("assistant", "34 metres."), ("user", " And why?\n")
SYSTEM = ("system", "You are the keeper.\nBe brief. ")
PLAIN = [[USER], [USER, ANSWER, AGAIN], [("user", "灯 🙂 <b>&amp;</b> \"'\\")], [USER, ANSWER]]
WITH_SYSTEM = [[SYSTEM, USER], [SYSTEM, USER, ANSWER, AGAIN]]
FREE = [[USER, USER], [("user", "")], [ANSWER], [SYSTEM], [USER, SYSTEM]]


def records(source, bos, eos, conversations):
    template = jinja2.Environment(keep_trailing_newline=True).from_string(source)
    for conversation in conversations:
        messages = [{"role": role, "content": content} for role, content in conversation]
        for prompt in (False, True):
            text = template.render(messages=messages, bos_token=bos, eos_token=eos, add_generation_prompt=prompt)
            fields = [source, bos, eos, str(int(prompt)), text]
            fields += [part for message in conversation for part in message]
            yield "".join(field + "\x1f" for field in fields) + "\x1e"


def main():
    fields = gguf.GGUFReader(model_path()).fields
    own = fields["tokenizer.chat_template"].contents()
    tokens = fields["tokenizer.ggml.tokens"]
    bos, eos = (tokens.contents(fields[f"tokenizer.ggml.{name}_token_id"].contents()) for name in ("bos", "eos"))
    found = [
        *records(own, bos, eos, PLAIN + WITH_SYSTEM + FREE),
        *records(CHATML, "<s>", "</s>", PLAIN + WITH_SYSTEM + FREE),
        *records(CHATML_ESCAPED, "<s>", "</s>", PLAIN + WITH_SYSTEM),
        *records(LLAMA3, "<|begin_of_text|>", "<|end_of_text|>", PLAIN + WITH_SYSTEM + FREE),
        *records(LLAMA2, "<s>", "</s>", PLAIN + WITH_SYSTEM),
        *records(GEMMA, "<bos>", "<eos>", PLAIN),
        *records(GEMMA3, "<bos>", "<eos>", PLAIN + WITH_SYSTEM),
        *records(ZEPHYR, "<s>", "</s>", PLAIN + WITH_SYSTEM + FREE),
    ]
    (FIXTURES / "chat.txt").write_bytes("".join(found).encode())
    print(f"{len(found)} conversations")


if __name__ == "__main__":
    main()

"""Tiny random stand-ins for the Hub repositories that PEFT's prompt-learning tests load, laid out for `local_hub`.

Every model is made from a config, seeded by its repository's name, and has a byte-level tokenizer trained on words
below. Nothing is downloaded.
"""

from __future__ import annotations

import json
import random
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

VOCABULARY = 512  # unlike any other size of the models below
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TEXT = """the a of to and in is it you that he was for on are with as his they be at one have this from or had by hot
but some what there we can out other were all your when up use word how said an each she which do their time if will way
about many then them would write like so these her long make thing see him two has look more day could go come did my
sound no most number who over know water than call first people may down side been now find any new work part take get
movie film review great terrible positive negative sentiment classify prompt test"""
WORDS = TEXT.split()

GPT2 = dict(n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.1, **IDS)
OPT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "ffn_dim": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
OPT |= dict(word_embed_proj_dim=16, dropout=0.1, init_std=0.1, **IDS)
LLAMA = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA |= dict(max_position_embeddings=256, initializer_range=0.1, **IDS)
GROUPED = {**LLAMA, "num_key_value_heads": 2}
GEMMA3 = {**GROUPED, "hidden_size": 32, "head_dim": 16, "sliding_window": 64, "query_pre_attn_scalar": 16}
GEMMA3 |= {"layer_types": ["sliding_attention", "full_attention"]}
T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 37,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "initializer_factor": 1.0,
}
T5 |= {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 2}
BART = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
}
BART |= {"encoder_ffn_dim": 4, "decoder_ffn_dim": 4, "max_position_embeddings": 256, "init_std": 0.1}
BART |= dict(decoder_start_token_id=2, forced_eos_token_id=None, **IDS)
BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "type_vocab_size": 16,
}
BERT |= {"max_position_embeddings": 256, "initializer_range": 0.1, "pad_token_id": 0}
DEBERTA = {**BERT, "type_vocab_size": 0, "relative_attention": True, "position_biased_input": False}
DEBERTA |= {"pos_att_type": ["c2p", "p2c"]}

Recipe = tuple[str, str, dict[str, Any]]
OPT_LM: Recipe = ("OPTForCausalLM", "OPTConfig", OPT)
GPT2_LM: Recipe = ("GPT2LMHeadModel", "GPT2Config", GPT2)
LLAMA_LM: Recipe = ("LlamaForCausalLM", "LlamaConfig", LLAMA)
T5_LM: Recipe = ("T5ForConditionalGeneration", "T5Config", T5)
BERT_MODEL: Recipe = ("BertModel", "BertConfig", BERT)
PEFT, HF, TRL = "peft-internal-testing/tiny-", "hf-internal-testing/tiny-random-", "trl-internal-testing/tiny-"
DECODERS: dict[str, Recipe] = {
    f"{PEFT}random-OPTForCausalLM": OPT_LM,
    "peft-internal-testing/opt-125m": OPT_LM,
    f"{PEFT}random-GPT2LMHeadModel": GPT2_LM,
    f"{HF}gpt2": GPT2_LM,
    "gpt2": GPT2_LM,
    f"{PEFT}random-GPTJForCausalLM": ("GPTJForCausalLM", "GPTJConfig", {**GPT2, "rotary_dim": 4, "n_inner": 37}),
    f"{TRL}random-LlamaForCausalLM": LLAMA_LM,
    f"{PEFT}random-LlamaForCausalLM": LLAMA_LM,
    f"{PEFT}dummy-qwen2": ("Qwen2ForCausalLM", "Qwen2Config", GROUPED),
    f"{TRL}Qwen3ForCausalLM": ("Qwen3ForCausalLM", "Qwen3Config", {**GROUPED, "head_dim": 8}),
    f"{HF}Gemma3ForCausalLM": ("Gemma3ForCausalLM", "Gemma3TextConfig", GEMMA3),
    f"{HF}MistralForCausalLM": ("MistralForCausalLM", "MistralConfig", {**GROUPED, "sliding_window": 4096}),
    f"{PEFT}random-T5ForConditionalGeneration-calibrated": T5_LM,
    f"{PEFT}random-T5ForConditionalGeneration": T5_LM,
    f"{PEFT}random-BartForConditionalGeneration": ("BartForConditionalGeneration", "BartConfig", BART),
    f"{TRL}LlamaForSequenceClassification-3.2": (
        *("LlamaForSequenceClassification", "LlamaConfig"),
        {**GROUPED, "num_labels": 1},
    ),
}
ROBERTA = {**BERT, **IDS}
ENCODERS: dict[str, Recipe] = {  # their tokenizer puts <s> and </s> around a text
    f"{PEFT}random-BertForSequenceClassification": ("BertForSequenceClassification", "BertConfig", BERT),
    f"{PEFT}random-RobertaForSequenceClassification": ("RobertaForSequenceClassification", "RobertaConfig", ROBERTA),
    f"{PEFT}random-BertModel": BERT_MODEL,
    f"{HF}BertModel": BERT_MODEL,
    f"{PEFT}random-RobertaModel": ("RobertaModel", "RobertaConfig", ROBERTA),
    f"{PEFT}random-DebertaModel": ("DebertaModel", "DebertaConfig", DEBERTA),
    f"{PEFT}random-DebertaV2Model": ("DebertaV2Model", "DebertaV2Config", DEBERTA),
}
LORA = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "target_modules": ["q_proj", "v_proj"]}
LORA |= {"inference_mode": True, "base_model_name_or_path": "peft-internal-testing/opt-125m"}
CONFIGS = [  # adapters of which only the config is read
    (f"{PEFT}opt-lora-revision", "test"),
    (f"{PEFT}opt-lora-revision", "main"),
    ("ybelkada/test-st-lora", "main"),
]


def sentences(count: int, seed: int = 0) -> Iterator[str]:
    """Texts of random words, the same for the same seed."""
    choose = random.Random(seed)
    for _ in range(count):
        yield " ".join(choose.choices(WORDS, k=choose.randint(4, 24))).capitalize() + choose.choice(".!?")


def tokenizer(encoder: bool) -> tf.PreTrainedTokenizerFast:
    """Byte-level BPE; an encoder's puts special tokens around a text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(sentences(2000), trainer)
    assert bpe.get_vocab_size() == VOCABULARY
    if encoder:
        bpe.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token", "mask_token"), SPECIAL, strict=True))
    extra = {"cls_token": "<s>", "sep_token": "</s>"} if encoder else {}
    return tf.PreTrainedTokenizerFast(tokenizer_object=bpe, model_max_length=256, **names, **extra)


def build(root: Path) -> None:
    """Write every repository."""
    for recipes, encoder in ((DECODERS, False), (ENCODERS, True)):
        own = tokenizer(encoder)
        for name, (model_class, config_class, settings) in recipes.items():
            torch.manual_seed(zlib.crc32(name.encode()))
            config = getattr(tf, config_class)(vocab_size=VOCABULARY, **settings)
            getattr(tf, model_class)(config).eval().save_pretrained(root / name / "main")
            own.save_pretrained(root / name / "main")
    for name, revision in CONFIGS:
        (root / name / revision).mkdir(parents=True, exist_ok=True)
        (root / name / revision / "adapter_config.json").write_text(json.dumps(LORA))


if __name__ == "__main__":
    build(Path(sys.argv[1]))

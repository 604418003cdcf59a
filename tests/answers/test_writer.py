"""Answers to many prompts on many rows are those that `generate` writes for each pair alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, BertForMaskedLM, MistralConfig, MistralForCausalLM

from peft_interp.answers.decoding import drawn
from peft_interp.answers.settings import AnswerSettings
from peft_interp.answers.writer import AnswerWriter, alike
from peft_interp.text.placement import END, START
from peft_interp.text.rows import Row
from tests.builders import BOS, EOS, PAD, seeded

Build = Callable[..., Any]
PROMPTS = [[7, 8, 9], [7], [20, 21, 22, 23, 24], [], [7, 8, 30, 31]]
NEW = 9


@pytest.fixture
def words(tokenizer_dir: Any) -> Any:
    return AutoTokenizer.from_pretrained(tokenizer_dir)


def mistral() -> Any:
    shape = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    more = {"num_key_value_heads": 1, "initializer_range": 0.2, "max_position_embeddings": 64, "sliding_window": 4}
    return seeded(MistralForCausalLM, MistralConfig(vocab_size=64, pad_token_id=PAD, eos_token_id=EOS, **shape, **more))


def rows_of(position: str, bos: bool, token_ids: Build) -> list[Row]:
    """Six rows of two to seven tokens, the last one with a labelled token that must not be read."""
    found = []
    for number, ids in enumerate(token_ids(6, 7).tolist()):
        ids = ids[: number + 2]
        labels = [-100] * len(ids)
        if number == 5:
            labels[-1] = ids[-1]
        placement = END if position == "end" else START
        found.append(Row((BOS,) if bos else (), tuple(ids), tuple(labels), placement.index(labels)))
    return found


def generated(model: Any, row: Row, prompt: Sequence[int], **options: Any) -> list[int]:
    """What `generate` writes, without the padding that it never has for a single input."""
    ids = [*row.before, *prompt, *row.ids[row.start : row.first]]
    settings = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": PAD, **options}
    found: list[int] = model.generate(torch.tensor([ids]), **settings)[0, len(ids) :].tolist()
    return found


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("position", ["start", "end"])
@pytest.mark.parametrize("name", ["gpt2", "gpt2_eager", "llama", "mistral"])
def test_greedy_answers_are_those_of_generate(
    name: str, position: str, bos: bool, gpt2: Build, llama: Build, words: Any, token_ids: Build
) -> None:
    built = {"gpt2": gpt2, "gpt2_eager": lambda: gpt2(attn_implementation="eager"), "llama": llama, "mistral": mistral}
    model, rows = built[name](), rows_of(position, bos, token_ids)
    found = AnswerWriter(model, words).write(PROMPTS, rows, AnswerSettings(NEW))
    expected = [[generated(model, row, prompt) for row in rows] for prompt in PROMPTS]
    assert [[list(answer.ids) for answer in of_prompt] for of_prompt in found] == expected
    assert len({tuple(ids) for of_prompt in expected for ids in of_prompt}) > 5, "prompts and rows matter"
    assert [a.text.split() for a in found[0]] == [[f"w{i}" for i in ids if i > EOS] for ids in expected[0]]


def test_rows_that_end_leave_the_batch_and_others_go_on(gpt2: Build, words: Any, token_ids: Build) -> None:
    model, rows = gpt2(eos_token_id=None), rows_of("start", False, token_ids)
    likely = [generated(model, row, PROMPTS[0])[2] for row in rows]
    writer = AnswerWriter(model, words)
    assert {len(a.ids) for of_prompt in writer.write(PROMPTS, rows, AnswerSettings(NEW)) for a in of_prompt} == {NEW}
    model.generation_config.eos_token_id = sorted(set(likely[:3]))  # as Trainer may do in between
    found = writer.write(PROMPTS, rows, AnswerSettings(NEW))
    expected = [[generated(model, row, prompt) for row in rows] for prompt in PROMPTS]
    assert [[list(answer.ids) for answer in of_prompt] for of_prompt in found] == expected
    lengths = {len(ids) for of_prompt in expected for ids in of_prompt}
    assert min(lengths) < NEW
    assert max(lengths) == NEW


def test_stop_texts_end_answers_as_in_generate(byte_tokenizer: Any, gpt2: Build, token_ids: Build) -> None:
    model, rows = gpt2(vocab_size=len(byte_tokenizer), eos_token_id=None), rows_of("end", False, token_ids)
    stop = [byte_tokenizer.decode(generated(model, rows[i], PROMPTS[0])[1 + 3 * i]) for i in (0, 1)]
    found = AnswerWriter(model, byte_tokenizer).write(PROMPTS[:3], rows, AnswerSettings(NEW, stop_strings=stop))
    options = {"stop_strings": stop, "tokenizer": byte_tokenizer}
    expected = [[generated(model, row, prompt, **options) for row in rows] for prompt in PROMPTS[:3]]
    assert [[list(answer.ids) for answer in of_prompt] for of_prompt in found] == expected
    assert min(len(ids) for of_prompt in expected for ids in of_prompt) < NEW
    assert found[0][0].text.endswith(tuple(stop))


def test_stop_texts_that_end_within_a_token_are_the_answers_end(byte_tokenizer: Any, gpt2: Build) -> None:
    model = gpt2(vocab_size=len(byte_tokenizer), eos_token_id=None)
    row = [Row((), tuple(byte_tokenizer.encode("The film was")), (-100,) * 20, 0)]
    (((plain,),),) = [AnswerWriter(model, byte_tokenizer).write([[5]], row, AnswerSettings(12))]
    stop = plain.text[4:6]
    (((cut,),),) = [AnswerWriter(model, byte_tokenizer).write([[5]], row, AnswerSettings(12, stop_strings=stop))]
    assert cut.text == plain.text[: plain.text.index(stop) + 2]
    assert cut.ids == plain.ids[: len(cut.ids)]
    assert len(cut.ids) < 12


def test_drawing_does_not_depend_on_what_else_is_asked(gpt2: Build, words: Any, token_ids: Build) -> None:
    model, rows = gpt2(), rows_of("start", False, token_ids)
    settings = AnswerSettings(NEW, do_sample=True, temperature=1.5, seed=3)
    together = AnswerWriter(model, words).write(PROMPTS, rows, settings)
    assert AnswerWriter(model, words).write(PROMPTS[2:3], rows[3:4], settings) == [[together[2][3]]]
    others = AnswerWriter(model, words).write(PROMPTS, rows, AnswerSettings(NEW, do_sample=True, temperature=1.5))
    assert sum(a == b for x, y in zip(together, others, strict=True) for a, b in zip(x, y, strict=True)) < 5


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([[2.0, 0.5, 1.0, -1.0, 0.0]])
    draws = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000

    def shares(**settings: Any) -> torch.Tensor:
        found = drawn(logits.expand(2000, -1), draws, AnswerSettings(do_sample=True, **settings))
        return found.bincount(minlength=5) / 2000

    assert torch.allclose(shares(), logits[0].softmax(-1), atol=1e-3)
    assert torch.allclose(shares(temperature=2.0), (logits[0] / 2).softmax(-1), atol=1e-3)
    kept = logits[0].masked_fill(torch.tensor([0, 1, 0, 1, 1]).bool(), -torch.inf).softmax(-1)
    assert torch.allclose(shares(top_k=2), kept, atol=1e-3)
    assert torch.allclose(shares(top_p=0.6), kept, atol=1e-3), "the two of 0.55 and 0.20 pass 0.6"


def test_what_pairs_have_in_common_is_run_once(gpt2: Build, words: Any, token_ids: Build) -> None:
    model, tokens = gpt2(eos_token_id=None), []
    hook = model.get_input_embeddings().register_forward_pre_hook(lambda _, args: tokens.append(args[0].numel()))
    texts, prompts = token_ids(4, 7).tolist(), token_ids(8, 3).tolist()
    rows = [Row((), tuple(ids), (-100,) * 7, 7) for ids in texts]
    writer = AnswerWriter(model, words, share=True)
    writer.write(prompts, rows, AnswerSettings(3))
    assert tokens == [4 * 7, 32 * 3, 32, 32], "the rows, the prompts after them, two tokens more"
    tokens.clear()
    writer.write([[40, 41, 42]], rows, AnswerSettings(3))
    assert tokens == [4 * 3, 4, 4], "the rows' keys and values are kept"
    tokens.clear()
    found = writer.write([*prompts, [40, 41, 42]], rows, AnswerSettings(3))
    assert tokens == []
    assert len(found) == 9
    assert writer.written == 36
    tokens.clear()
    at_start = [Row((), tuple(ids), (-100,) * 7, 0) for ids in texts]
    writer.write(prompts, at_start, AnswerSettings(1))
    assert tokens == [8 * 3, 32 * 7]
    hook.remove()


def test_small_memory_makes_small_batches_and_the_same_answers(gpt2: Build, words: Any, token_ids: Build) -> None:
    model, rows = gpt2(), rows_of("end", True, token_ids)
    expected = AnswerWriter(model, words).write(PROMPTS, rows, AnswerSettings(NEW))
    writer, largest = AnswerWriter(model, words), []
    writer._batches.tokens = 250
    hook = model.get_input_embeddings().register_forward_pre_hook(lambda _, args: largest.append(len(args[0])))
    assert writer.write(PROMPTS, rows, AnswerSettings(NEW)) == expected
    hook.remove()
    assert max(largest) < 15


def test_a_model_in_training_mode_is_left_as_it_was(gpt2: Build, words: Any, token_ids: Build) -> None:
    model, rows = gpt2(resid_pdrop=0.5), rows_of("start", False, token_ids)
    expected = AnswerWriter(model, words).write(PROMPTS, rows)
    model.train()
    assert AnswerWriter(model, words).write(PROMPTS, rows) == expected
    assert model.training


def test_mistakes_are_named(gpt2: Build, bert: Build, readable: Build, words: Any) -> None:
    row = Row((), (5, 6, 7), (-100,) * 3, 0)
    writer = AnswerWriter(gpt2(), words)
    with pytest.raises(ValueError, match="row 0 with a prompt of 2 and 80 new tokens is 84 tokens, the model takes 64"):
        writer.write([[5, 6]], [row], AnswerSettings(80))
    with pytest.raises(ValueError, match="row 0 has no token, and the prompt none"):
        writer.write([[]], [Row((), (), (), 0)])
    with pytest.raises(ValueError, match="64"):
        writer.write([[64]], [row])
    with pytest.raises(ValueError, match="BertForMaskedLM is no causal language model"):
        AnswerWriter(bert(BertForMaskedLM), words)
    with pytest.raises(ValueError, match="adds a prompt of its own"):
        AnswerWriter(readable(gpt2()), words)
    for wrong in ({"max_new_tokens": 0}, {"temperature": 0.0}, {"top_k": -1}, {"top_p": 0.0}, {"stop_strings": [""]}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}="):
            AnswerSettings(**wrong)


def test_rounding_of_half_precision_is_not_taken_for_another_model() -> None:
    expected = 10 * torch.randn(3, 50)
    unlikely = expected.clone()
    unlikely[:, expected[0].argmin()] -= 3.0  # a logit that hardly counts, off by more than a step of bf16
    assert not alike(unlikely, expected, torch.float32)
    assert alike(unlikely[:1], expected[:1], torch.bfloat16)
    assert alike(expected + 1e-4, expected, torch.float32)
    assert not alike(expected.roll(1, 0), expected, torch.bfloat16), "another row's answer"

"""What is scored is the prompt's text where it stands; the policy may speak another vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from peft_interp import embedded
from peft_interp.scoring.candidates import PolicyVocabulary
from peft_interp.text.placement import END, PLACEMENTS, Placement
from peft_interp.text.surrounding_text import SurroundingText

Build = Callable[..., Any]


def words(*vocabulary: str) -> PreTrainedTokenizerFast:
    """A word tokenizer with `<unk>` in front of these words."""
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(("<unk>", *vocabulary))}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


@pytest.fixture(scope="module")
def bpe() -> Any:
    return embedded.load_tokenizer()


@pytest.fixture(scope="module")
def vocabulary(bpe: Any) -> PolicyVocabulary:
    return PolicyVocabulary(torch.ones(len(bpe), dtype=torch.bool), bpe)


@pytest.mark.parametrize("placement", PLACEMENTS.values())
def test_ordinary_words_are_scored_as_they_were_sampled(
    placement: Placement, vocabulary: PolicyVocabulary, bpe: Any
) -> None:
    ids = bpe.encode(" film review verdict", add_special_tokens=False)
    found = vocabulary.candidate(ids, SurroundingText(placement, " The story is told well."))
    assert (found.ids, found.text, found.survived, found.fits) == (tuple(ids), " film review verdict", True, True)


def test_pieces_that_come_back_as_another_token_are_scored_as_that(vocabulary: PolicyVocabulary, bpe: Any) -> None:
    whole = bpe.encode(" film", add_special_tokens=False)
    pieces = [bpe.encode(" fil", add_special_tokens=False), bpe.encode("m", add_special_tokens=False)]
    sampled = [i for piece in pieces for i in piece]
    assert len(whole) == 1 < len(sampled), "the tokenizer no longer fits this test"
    found = vocabulary.candidate(sampled, SurroundingText(following=" The story."))
    assert found.ids == tuple(whole)
    assert not found.survived
    assert not found.fits, "one token less than the adapter holds"


def test_a_prompt_that_melts_with_its_neighbour_is_never_chosen(vocabulary: PolicyVocabulary, bpe: Any) -> None:
    glued = bpe.encode("s", add_special_tokens=False) + bpe.encode(" film", add_special_tokens=False)
    found = vocabulary.candidate(glued, SurroundingText(END))
    assert not found.fits or found.survived
    at_start = vocabulary.candidate(
        bpe.encode(" film", add_special_tokens=False), SurroundingText(following="s are good")
    )
    assert at_start.ids, "without a known boundary the text alone decides"


def test_the_same_length_with_forbidden_tokens_does_not_fit(bpe: Any) -> None:
    ids = bpe.encode(" film review", add_special_tokens=False)
    allowed = torch.ones(len(bpe), dtype=torch.bool)
    vocabulary = PolicyVocabulary(allowed, bpe)
    swapped = vocabulary.candidate(ids, SurroundingText(following=" The story."))
    assert swapped.fits
    assert vocabulary.policy_ids(ids) == ids
    allowed[ids[0]] = False
    assert PolicyVocabulary(allowed, bpe).policy_ids(ids) is None


def test_another_tokenizer_is_translated_token_by_token() -> None:
    task, policy = words("a", "good", "film", "bad"), words("film", "a", "awful", "good")
    allowed = torch.tensor([False, True, True, True, False])  # "bad" is forbidden
    vocabulary = PolicyVocabulary(allowed, task, policy, torch.randn(5, 4))
    assert vocabulary.allowed.tolist() == [False, True, True, False, True], "awful is no word of the task model"
    assert vocabulary.task_ids([4, 1]) == task.encode("good film")
    assert vocabulary.policy_ids(task.encode("good film")) == [4, 1]
    assert vocabulary.policy_ids(task.encode("bad film")) is None


def test_a_policy_that_cannot_express_anything_is_refused() -> None:
    task, policy = words("a", "good"), words("a", "x", "y")
    with pytest.raises(ValueError, match="the policy's tokenizer cannot express the task model's tokens"):
        PolicyVocabulary(torch.tensor([False, False, True]), task, policy, torch.randn(4, 4))


def test_a_search_with_another_models_policy(searcher: Build, gpt2: Build, tokenizer: Any) -> None:
    """The policy speaks half of the words, under other ids, and is another model."""
    policy_tokenizer = words("a", *[f"w{i}" for i in range(60, 30, -1)])
    model = gpt2(vocab_size=len(policy_tokenizer), n_embd=16, bos_token_id=0, eos_token_id=0)
    trainer = searcher(options={"policy_model": model, "policy_tokenizer": policy_tokenizer}, max_steps=3)
    trainer.train()
    sampled = [record for record in trainer.search.archive.records[1:] if record.split == "train"]
    assert all(record.fits for record in sampled)
    assert {i for record in sampled for i in record.ids} <= set(range(31, 61))
    assert trainer.policy.head[0].weight.shape[1] == 16
    with pytest.raises(ValueError, match=r"vocabulary of 31, the task model one of 64; pass .*`policy_tokenizer`"):
        searcher(options={"policy_model": gpt2(vocab_size=31)})

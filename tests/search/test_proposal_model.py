"""Any instruct model may propose: it has a vocabulary of its own, and its answers become prompts as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests import builders

Build = Callable[..., Any]
WORDS = (
    "is",
    "this",
    "a",
    "film",
    "review",
    "great",
    "or",
    "terrible",
    "say",
    "the",
    "text",
    "was",
    "good",
    "bad",
    "me",
)
BEGUN = ("what", "is", "decide", "say", "whether", "classify", "tell", "choose", "this", "read", "name")
CHAT = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
ASKED = {"induce", "ask_for_labels", "paraphrase", "shorten"}


@pytest.fixture(scope="module")
def chat_tokenizer() -> Any:
    """Whole words, a dozen of them: nothing like the task model's pieces."""
    vocabulary = {word: i for i, word in enumerate(["<unk>", "</s>", "?", ".", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    core.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="</s>", chat_template=CHAT)


@pytest.fixture(scope="module")
def chat_model(chat_tokenizer: Any) -> Any:
    """Its weights are random and small, so it says its words in any order, each as often."""
    size = {"vocab_size": len(chat_tokenizer), "n_positions": 512, "initializer_range": 0.02}
    return builders.gpt2(**size, bos_token_id=1, eos_token_id=1)


@pytest.fixture
def asking(searcher: Build, adapter: Build, chat_model: Any, chat_tokenizer: Any) -> Build:
    """`asking(options=None, **arguments)`: a search whose instruct moves ask that model, more often than usual."""

    def build(options: dict[str, Any] | None = None, **arguments: Any) -> Any:
        parts = {"proposal_model": chat_model, "proposal_tokenizer": chat_tokenizer}
        often = {"induction_share": 2.0, "label_question_share": 2.0, "paraphrase_share": 2.0, "shorten_share": 2.0}
        model = (options or {}).pop("model", None) or adapter(num_virtual_tokens=12)
        return searcher(model, {**parts, **(options or {})}, **{"human_starts": 0, **often, **arguments})

    return build


def test_a_model_of_another_vocabulary_proposes(asking: Build, searcher: Build, tokenizer: Any) -> None:
    assert not searcher().search.proposer.has("chat"), "the embedded model knows no chat"
    trainer = asking(logging_steps=1)
    proposer = trainer.search.proposer
    parents = [tokenizer.encode("Is this film good?")]
    made = proposer.propose(parents, 48, seed=0)
    assert made == proposer.propose(parents, 48, seed=0)
    asked = [ids for name, ids in made if name in ASKED]
    assert len({name for name, _ in made} & ASKED) > 1
    for ids in asked:
        text = tokenizer.decode(ids)
        assert tokenizer.encode(text) == ids  # the task model's ids, not the other's
        assert set(text.lower().replace("?", " ").replace(".", " ").split()) <= {*WORDS, *BEGUN}
    trainer.train()
    assert {f"yield/{name}" for name in ASKED} & {name for entry in trainer.state.log_history for name in entry}
    assert trainer.search.prompt_passes > 0


def test_it_writes_nothing_that_the_filter_forbids(asking: Build, adapter: Build, tokenizer: Any) -> None:
    model = adapter(num_virtual_tokens=12, banned_words=["great", "terrible"])
    proposer = asking(options={"model": model}).search.proposer
    made = [ids for name, ids in proposer.propose([tokenizer.encode("Is it good?")], 64, seed=0) if name in ASKED]
    assert made
    assert not any({"great", "terrible"} & set(tokenizer.decode(ids).lower().split()) for ids in made)


def test_resumed_search_equals_an_uninterrupted_one(asking: Build, resumed: Build) -> None:
    straight, second = resumed(asking)
    assert straight.search.archive.records == second.search.archive.records
    assert straight.search.prompt_passes == second.search.prompt_passes
    assert straight.front() == second.front()
    assert straight.model.prompt_token_ids() == second.model.prompt_token_ids()


def test_mistakes(asking: Build, chat_model: Any, chat_tokenizer: Any, tokenizer: Any, t5: Build) -> None:
    with pytest.raises(ValueError, match="`proposal_tokenizer` is given without `proposal_model`; pass both"):
        asking({"proposal_model": None})
    with pytest.raises(ValueError, match="`proposal_model` is given without `proposal_tokenizer`; pass both"):
        asking({"proposal_tokenizer": None})
    with pytest.raises(ValueError, match=r"has no chat template.*pass an instruct model"):
        asking({"proposal_tokenizer": tokenizer})
    with pytest.raises(ValueError, match="T5ForConditionalGeneration, which is no causal language model"):
        asking({"proposal_model": t5()})
    with pytest.raises(ValueError, match=r"has \d+ tokens and `proposal_model` \(GPT2LMHeadModel\) knows 9"):
        asking({"proposal_model": builders.gpt2(vocab_size=9)})

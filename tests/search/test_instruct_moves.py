"""What an instruct model is asked for, and what of its answers becomes a prompt."""

from __future__ import annotations

from copy import deepcopy
from random import Random
from typing import Any

import pytest
import torch
from peft import get_peft_model

from peft_interp import (
    InterpPromptConfig,
    PromptSearchConfig,
    PromptSearchTrainer,
    Verbalizer,
    embedded,
    exact_match_reward,
    on_answers,
)
from peft_interp.search.instruct_moves import (
    LONGEST_INPUT,
    ask_for_labels,
    first_sentence,
    induction,
    paraphrase,
    shortened,
)
from peft_interp.search.moves import MOVES
from peft_interp.search.proposals import ProposalSettings, Proposer, TaskExamples

PAIRS = [("A dull film.", "terrible"), ("A lovely film.", "great"), ("Dull. " * 100, "terrible"), ("Fun!", "great")]
TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (" Is this review positive or negative? Yes.", "Is this review positive or negative?"),
        ('"Decide whether it is good." I would say', "Decide whether it is good."),
        ("Rate it from 1.5 to 5. Then stop", "Rate it from 1.5 to 5."),
        ("no end in sight", ""),
        ("first line\nAnswer: yes.", ""),
        ("**Review:** it", "Review:"),
        ("", ""),
    ],
)
def test_only_whole_sentences_become_prompts(written: str, kept: str) -> None:
    assert first_sentence(written) == kept


def test_requests_show_every_answer_and_cut_long_texts() -> None:
    request = induction(PAIRS, Random(0))
    assert "Answer: terrible" in request.text
    assert "Answer: great" in request.text
    assert all(len(line) < LONGEST_INPUT + 40 for line in request.text.splitlines())
    asked = ask_for_labels([" world", "sports", "business"], PAIRS, Random(0))
    assert "world, sports or business" in asked.text
    assert "My prompt." in paraphrase("My prompt.").text
    assert "My prompt." in shortened("My prompt.").text
    assert induction(PAIRS, Random(1)) == induction(PAIRS, Random(1))


def test_moves_that_need_a_chat_template_wait_for_one(language_model: Any, tokenizer: Any) -> None:
    chat = deepcopy(tokenizer)
    chat.chat_template = TEMPLATE
    settings = ProposalSettings(dict.fromkeys(MOVES, 1.0), 2, 12)
    allowed = torch.ones(len(tokenizer), dtype=torch.bool)
    task = TaskExamples(PAIRS, ("terrible", "great"))
    parents = [tokenizer.encode("Is this film good?")]
    plain = Proposer(language_model, tokenizer, allowed, settings, task=task)
    asked = Proposer(language_model, chat, allowed, settings, task=task)
    untold = Proposer(language_model, chat, allowed, settings)
    assert not any(plain.has(needs) for needs in ("gradient", "chat", "examples", "label words"))
    assert all(asked.has(needs) for needs in ("chat", "examples", "label words"))
    assert untold.has("chat")
    assert not untold.has("examples")
    assert {name for name, _ in plain.propose(parents, 24, 0)} <= {"continue", "rewrite", "edit"}
    made = asked.propose(parents, 64, 0)
    written = [ids for name, ids in made if name in ("induce", "ask_for_labels", "paraphrase", "shorten")]
    assert written
    assert made == asked.propose(parents, 64, 0)
    for ids in written:
        text = tokenizer.decode(ids)
        assert text == text.strip()
        assert text[-1] in ".?!:"


def test_a_search_opens_with_what_an_instruct_model_makes_of_the_rows(language_model: Any, tokenizer: Any) -> None:
    chat = deepcopy(tokenizer)
    chat.chat_template = TEMPLATE
    allowed, task = torch.ones(len(tokenizer), dtype=torch.bool), TaskExamples(PAIRS, ("terrible", "great"))
    settings = ProposalSettings(dict.fromkeys(MOVES, 1.0), 2, 12)
    parents = [tokenizer.encode("Is this film good?")]
    plain = Proposer(language_model, tokenizer, allowed, settings, task=task).opened(parents, 64, 0)
    assert {name for name, _ in plain} == {"continue"}
    asked = Proposer(language_model, chat, allowed, settings, task=task).opened(parents, 64, 0)
    assert {"continue", "induce", "ask_for_labels"} >= {name for name, _ in asked} > {"continue"}


def test_a_prompt_shows_an_answer_where_answers_are_written(language_model: Any, tokenizer: Any) -> None:
    move = next(move for move in MOVES if move.name == "show")
    settings = ProposalSettings({move: 1.0}, 2, 32)
    allowed = torch.ones(len(tokenizer), dtype=torch.bool)
    parents = [tokenizer.encode("Is this film good?")]
    shown = TaskExamples(PAIRS, writes=True)
    proposer = Proposer(language_model, tokenizer, allowed, settings, task=shown)
    texts = {tokenizer.decode(ids) for name, ids in proposer.propose(parents, 16, 0) if name == "show"}
    assert texts == {"Is this film good? For example: terrible", "Is this film good? For example: great"}
    for task in (TaskExamples(PAIRS), TaskExamples((), writes=True), TaskExamples([("a", " ")], writes=True)):
        assert not Proposer(language_model, tokenizer, allowed, settings, task=task).has("answers")


def test_what_is_shown_of_rows(tmp_path: Any) -> None:
    """Rows without labels show what a ready reward compares with; written answers are shown without their end token."""
    model, tokenizer = embedded.load_model(), embedded.load_tokenizer()
    rows = [{"text": "A dull film.", "answer": "bad"}, {"text": "Fun!", "answer": "good"}]
    expected = [("A dull film.", "bad"), ("Fun!", "good")]
    reward = on_answers(exact_match_reward(), max_new_tokens=1)
    for verbalizer in (None, Verbalizer("{prompt} {text} In short:")):
        adapter: Any = get_peft_model(model, InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
        args = PromptSearchConfig(str(tmp_path), report_to=[], use_cpu=True)
        options: dict[str, Any] = {"reward_funcs": reward, "text_column": "text", "label_column": "answer"}
        trainer = PromptSearchTrainer(adapter, args, rows, None, tokenizer, verbalizer, **options)
        task = trainer.search.proposer.task
        assert [(text, answer.strip()) for text, answer in task.pairs] == expected
        assert task.writes
        measured = {reward.name for reward in trainer.search.scorer._wanted(trainer.search.train)}
        assert not {"loss", "negative_loss"} & measured, (
            "what is written is rewarded, and the labels' loss costs a pass"
        )
        assert "nll" in measured

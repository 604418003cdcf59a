"""What an instruct model is asked for, and what of its answers becomes a prompt."""

from __future__ import annotations

from copy import deepcopy
from random import Random
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model

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
    demonstration,
    first_sentence,
    induction,
    paraphrase,
    shortened,
)
from peft_interp.search.moves import MOVES
from peft_interp.search.proposals import ProposalSettings, Proposer, TaskExamples
from peft_interp.text.token_filter import allowed_tokens
from peft_interp.text.tokenization import survives

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
    assert {name for name, _ in asked[:4]} == {name for name, _ in asked}  # a search that uses the first few has all


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


def _proposed(proposer: Proposer, count: int) -> list[list[int]]:
    """Demonstrations, some of them after an instruction."""
    parents = [proposer.encoded(["Is this film good?"])[0]]
    return [ids for name, ids in proposer.propose(parents, count, 0) if name == "demonstrate"]


def test_an_instruction_may_stand_in_front_and_odd_rows_are_left_out(language_model: Any, tokenizer: Any) -> None:
    move = next(move for move in MOVES if move.name == "demonstrate")
    rows = [(" A dull film. It was", "terrible"), (" Caf\u00e9. It was", "great"), (" A warm film. It was", "great")]
    allowed = allowed_tokens(language_model.get_input_embeddings().weight, tokenizer, "lines")
    shown = TaskExamples(label_words=("terrible", "great"), labelled_rows=rows)
    proposer = Proposer(language_model, tokenizer, allowed, ProposalSettings({move: 1.0}, 2, 40), task=shown)
    assert proposer.labelled_rows == [rows[0], rows[2]]
    texts = {tokenizer.decode(ids) for ids in _proposed(proposer, 40)}
    pair = {
        "A dull film. It was terrible\nA warm film. It was great\n",
        "A warm film. It was great\nA dull film. It was terrible\n",
    }
    assert texts == pair | {f"Is this film good?\n{text}" for text in pair}
    lost = TaskExamples(label_words=("terrible", "great"), labelled_rows=rows[:2])  # no row of one label is left
    assert not Proposer(language_model, tokenizer, allowed, proposer.settings, task=lost).has("labelled rows")


def test_a_prompt_of_several_lines_is_saved_and_read_as_it_is(tmp_path: Any) -> None:
    tokenizer, text = embedded.load_tokenizer(), "A dull film. It was terrible\nA warm film. It was great\n"
    config = InterpPromptConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=4, allowed_tokens="lines", tokenizer_name_or_path=embedded.MODEL_PATH
    )
    model: Any = get_peft_model(embedded.load_model(), config)
    model.use_prompt(tokenizer.encode(text), resize=True)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "prompt.txt").read_text(encoding="utf-8") == text
    loaded: Any = PeftModel.from_pretrained(embedded.load_model(), str(tmp_path))
    assert loaded.prompt_text(tokenizer) == text
    assert survives(tokenizer, loaded.prompt_token_ids(), " Fun. It was")


def test_labelled_rows_are_shown_line_by_line_as_many_of_each_label() -> None:
    rows = [(f" {word} {'very ' * i}film. It was", word) for word in ("bad", "good") for i in range(6)]
    one = demonstration(rows, 1, Random(0))
    assert sorted(line.split()[-1] for line in one.splitlines()) == ["bad", "good"]
    assert one.endswith("\n")
    many = demonstration(rows, 2, Random(1)).splitlines()
    assert (
        sorted(line.split()[0] for line in many)
        == ["bad", "bad", "good", "good"]
        == sorted(m.split()[-1] for m in many)
    )
    assert len(set(many)) == 4
    assert max(line.count("very") for line in many) <= 2  # of the shorter half
    assert demonstration(rows, 2, Random(1)).splitlines() == many
    assert demonstration(rows[:1], 3, Random(0)) == "bad film. It was bad\n"


def test_a_search_shows_labelled_rows_where_they_have_room(tmp_path: Any) -> None:
    base, tokenizer, task = embedded.load_model(), embedded.load_tokenizer(), embedded.TASKS["sentiment"]
    data = embedded.load_data("sentiment")
    rows = task.encode_dataset(tokenizer, data["train"]).select(range(12))
    sizes: dict[str, Any] = {"max_steps": 1, "prompts_per_step": 12, "human_starts": 0, "screening_examples": 4}
    args = PromptSearchConfig(str(tmp_path), **sizes, report_to=[], use_cpu=True)

    def search(length: int, allowed: str, verbalizer: Verbalizer = task) -> Any:
        config = InterpPromptConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=length,
            allowed_tokens=allowed,
            tokenizer_name_or_path=embedded.MODEL_PATH,
            prompt_position=verbalizer.prompt_position,
        )
        encoded = verbalizer.encode_dataset(tokenizer, data["train"]).select(range(12))
        return PromptSearchTrainer(get_peft_model(base, config), args, encoded, rows, tokenizer, verbalizer)

    trainer = search(80, "lines")
    assert trainer.search.proposer.task.labelled_rows[0] == (f" {data['train'][0]['sentence']} It was", "great")
    trainer.train()
    shown = [record for record in trainer.search.archive.records if record.text.count("It was") > 1]
    assert shown
    for record in shown:
        lines = [line for line in record.text.splitlines() if "It was" in line]
        assert {line.split()[-1] for line in lines} == {"terrible", "great"}
        assert tokenizer.decode(record.ids) == record.text
    short = search(60, "lines").search.proposer  # two of each label have no room
    assert all(len(ids) <= 60 for ids in _proposed(short, 20))
    assert len(_proposed(short, 20)) > 3
    assert not search(80, "ascii").search.proposer.has("labelled rows")  # no line may end
    assert not search(8, "lines").search.proposer.has("labelled rows")  # no room
    after = Verbalizer("{text} {prompt} It was", ("terrible", "great"))
    assert not search(80, "lines", after).search.proposer.has("labelled rows")  # the row stands before the prompt


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

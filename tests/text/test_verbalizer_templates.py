"""Several columns, a prompt anywhere, chats, labels by name: what is encoded is what a person would paste."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value

from peft_interp import Verbalizer
from peft_interp.text.placement import END, MARKED, START
from peft_interp.text.rows import read_rows
from peft_interp.text.tokenization import leading_ids

WORDS = ("bad", "great")
PAIR = {"premise": "The film was great", "hypothesis": "it was a dull movie"}
TEMPLATES = (
    "{prompt} {premise} So {hypothesis}",
    "{premise} So {hypothesis} {prompt}",
    "{premise}\n{prompt} {hypothesis}",
    "Review : {prompt}\n{premise} So {hypothesis}",
    "{premise} So ({prompt}) {hypothesis}",
)
PROMPTS = {"(": "The acting", "\n": "The acting", " ": " the acting"}
CHAT = (
    "{% for m in messages %}{{ '<|endoftext|>' + m['role'] + '\n' + m['content'] | trim + '<|endoftext|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|endoftext|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def chat_tokenizer(byte_tokenizer: Any) -> Any:
    """With a chat whose turns its BOS opens, as SmolLM2's."""
    import copy

    tokenizer = copy.deepcopy(byte_tokenizer)
    tokenizer.chat_template = CHAT
    return tokenizer


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_encoded_row_and_the_prompt_are_the_pasted_text(tokenizer: Any, template: str) -> None:
    verbalizer = Verbalizer(template, WORDS)
    before = template.partition("{prompt}")[0]
    prompt = PROMPTS[before[-1]] if before else "The acting"
    row = verbalizer.encode(tokenizer, PAIR, 1)
    (read,) = read_rows([row], leading_ids(tokenizer), verbalizer.placement)
    ids = verbalizer.placement.encode_prompt(tokenizer, prompt)
    pasted = tokenizer(verbalizer.fill(PAIR, prompt) + " great")["input_ids"]
    assert [*read.before, *ids, *read.after] == pasted
    assert verbalizer.fill(PAIR, prompt) == template.format(prompt=prompt, **PAIR).replace("  ", " ")
    assert read.labels[read.first :] == (pasted[-1],)


@pytest.mark.parametrize(
    ("template", "placement"),
    [(TEMPLATES[0], START), (TEMPLATES[1], END), (TEMPLATES[2], MARKED), (TEMPLATES[3], MARKED)],
)
def test_the_template_says_where_the_prompt_stands(template: str, placement: Any) -> None:
    verbalizer = Verbalizer(template, WORDS)
    assert verbalizer.placement == placement
    assert verbalizer.prompt_position == placement.name
    assert verbalizer.columns == ["premise", "hypothesis"]


def test_one_column_marks_the_place_of_a_prompt_inside(tokenizer: Any) -> None:
    row = Verbalizer("Review : {prompt}\n{text}", WORDS).encode(tokenizer, "dull", 0)
    place = row["attention_mask"].index(0)
    assert sum(row["attention_mask"]) == len(row["input_ids"]) - 1
    assert tokenizer.decode(row["input_ids"][:place], skip_special_tokens=True) == "Review :"
    assert row["labels"][place] == -100


@pytest.mark.parametrize("template", TEMPLATES)
def test_cutting_shortens_the_longest_columns_and_never_the_template(byte_tokenizer: Any, template: str) -> None:
    verbalizer = Verbalizer(template, WORDS)
    long = {"premise": "the film was great and the plot was terrible " * 3, "hypothesis": "the acting is bad " * 4}
    whole = verbalizer.encode(byte_tokenizer, long, 1)["input_ids"]
    shortest = len(verbalizer.encode(byte_tokenizer, {"premise": "the", "hypothesis": "the"}, 1)["input_ids"])
    for length in range(shortest + 4, len(whole) + 2, 3):
        row = verbalizer.encode(byte_tokenizer, long, 1, max_length=length)
        assert min(length, len(whole)) - 2 <= len(row["input_ids"]) <= length
        assert row["input_ids"][-1] == whole[-1]
        shown = byte_tokenizer.decode(row["input_ids"])
        for part in ("So", "Review :", "(", ")"):
            assert (part in template) == (part in shown)
        assert "the film" in shown
        assert "the acting" in shown
    with pytest.raises(ValueError, match="`max_length=4` leaves no room for text"):
        verbalizer.encode(byte_tokenizer, long, 1, max_length=4)


def test_braces_that_name_no_column_are_named(byte_tokenizer: Any) -> None:
    verbalizer = Verbalizer("{prompt} {premis} So {hypothesis}", WORDS)
    with pytest.raises(
        ValueError, match=r"asks for \{premis\}, and the row has no such column, only \['hypothesis', 'pr"
    ):
        verbalizer.encode(byte_tokenizer, PAIR, 0)
    data = Dataset.from_list([{**PAIR, "label": 0}])
    with pytest.raises(ValueError, match=r"has no column \['premis'\], only \['premise', 'hypothesis', 'label'\]"):
        verbalizer.encode_dataset(byte_tokenizer, data)
    with pytest.raises(ValueError, match=r"asks for the columns \['premis', 'hypothesis'\], and one text was given"):
        verbalizer.encode(byte_tokenizer, "one text", 0)
    with pytest.raises(ValueError, match="`hypothesis=None` is no text"):
        Verbalizer(TEMPLATES[0], WORDS).encode(byte_tokenizer, {**PAIR, "hypothesis": None}, 0)


def test_a_row_with_nothing_in_front_of_a_prompt_inside_is_named(byte_tokenizer: Any) -> None:
    verbalizer = Verbalizer("{premise}\n{prompt} {hypothesis}", WORDS)
    assert verbalizer.encode(byte_tokenizer, {**PAIR, "premise": ""}, 0)["input_ids"]  # the line break stands there
    with pytest.raises(ValueError, match="nothing stands in front of the prompt in the row"):
        Verbalizer("{premise} {prompt} {hypothesis}", WORDS).encode(byte_tokenizer, {**PAIR, "premise": ""}, 0)


def test_values_with_braces_stay_as_they_are() -> None:
    row = {"premise": "a {hypothesis} {prompt}", "hypothesis": "b {premise}"}
    assert Verbalizer(TEMPLATES[0], WORDS).fill(row, "P") == "P a {hypothesis} {prompt} So b {premise}"


# -- labels ---------------------------------------------------------


def test_labels_may_be_the_words_or_the_datas_own_names(byte_tokenizer: Any) -> None:
    verbalizer = Verbalizer("{prompt} {text}", WORDS, label_names=("neg", "pos"))
    assert [verbalizer.label_index(label) for label in ("neg", "pos", "POS ", 1, 0.0)] == [0, 1, 1, 1, 0]
    assert Verbalizer("{prompt} {text}", WORDS).label_index(" Great") == 1
    with pytest.raises(ValueError, match=r"`label='good'` is none of \['neg', 'pos'\]"):
        verbalizer.label_index("good")
    for names in (("neg",), ("neg", "neg")):
        with pytest.raises(ValueError, match="must be what the data calls each of the label words"):
            Verbalizer("{prompt} {text}", WORDS, label_names=names)


def test_class_names_come_from_the_data(byte_tokenizer: Any) -> None:
    names = ["not_great", "great"]
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    data = Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    verbalizer = Verbalizer.for_data("{prompt} {text}", data)
    assert verbalizer.label_words == ["not great", "great"]
    strings = [{"text": "a", "label": "pos_itive"}, {"text": "b", "label": "neg"}]
    verbalizer = Verbalizer.for_data("{prompt} {text}", strings)
    assert verbalizer.label_words == ["neg", "pos itive"]
    rows = verbalizer.encode_dataset(byte_tokenizer, Dataset.from_list(strings), "text")
    ends = [byte_tokenizer.decode([i for i in row["labels"] if i != -100]) for row in rows]
    assert ends == [" pos itive", " neg"]
    with pytest.raises(ValueError, match=r"the labels \[0, 1\] of column 'label' are no names"):
        Verbalizer.for_data("{prompt} {text}", [{"label": 1}, {"label": 0}])


def test_a_label_of_several_tokens_is_a_sequence(byte_tokenizer: Any) -> None:
    verbalizer = Verbalizer("{prompt} {text}", ("very bad", "great"))
    sequences = verbalizer.label_sequences(byte_tokenizer)
    assert [byte_tokenizer.decode(ids) for ids in sequences] == [" very bad", " great"]
    assert verbalizer.scored_ids(byte_tokenizer) is None
    assert Verbalizer("{prompt} {text}", WORDS).scored_ids(byte_tokenizer) is not None
    row = verbalizer.encode(byte_tokenizer, "dull", "very bad")
    assert [i for i in row["labels"] if i != -100] == sequences[0] == row["input_ids"][-len(sequences[0]) :]
    with pytest.raises(ValueError, match="which could never be the likelier one"):
        Verbalizer("{prompt} {text}", ("great", "great film")).label_sequences(byte_tokenizer)


def test_a_row_may_bring_its_own_options(byte_tokenizer: Any) -> None:
    verbalizer = Verbalizer("{prompt} {text}", options="answers")
    row = {"text": "The film was", "answers": ["dull", "great", "a great film"]}
    assert len(verbalizer.label_sequences(byte_tokenizer, row)) == 3
    for label in (2, "a great film"):
        encoded = verbalizer.encode(byte_tokenizer, row, label)
        assert byte_tokenizer.decode([i for i in encoded["labels"] if i != -100]) == " a great film"
    with pytest.raises(ValueError, match="`label=3` has no word; use 0 to 2"):
        verbalizer.encode(byte_tokenizer, row, 3)
    with pytest.raises(ValueError, match="the row has no column 'answers' with its options, only"):
        verbalizer.encode(byte_tokenizer, {"text": "The film was"}, 0)
    with pytest.raises(ValueError, match="must be a list of at least two texts to choose from"):
        verbalizer.encode(byte_tokenizer, {**row, "answers": ["dull"]}, 0)
    with pytest.raises(ValueError, match="leave out `label_words`"):
        Verbalizer("{prompt} {text}", WORDS, options="answers")


def test_without_words_the_label_is_a_text_that_ends(byte_tokenizer: Any) -> None:
    verbalizer = Verbalizer("{prompt} {text}")
    row = verbalizer.encode(byte_tokenizer, "The film", "a great movie")
    assert byte_tokenizer.decode([i for i in row["labels"] if i != -100]) == " a great movie<|endoftext|>"
    with pytest.raises(ValueError, match="`label=1` is a int and must be a string"):
        verbalizer.encode(byte_tokenizer, "The film", 1)
    with pytest.raises(ValueError, match="there is nothing to choose from"):
        verbalizer.label_token_ids(byte_tokenizer)


# -- chats ---------------------------------------------------------


@pytest.mark.parametrize(
    ("chat", "template", "prompt"),
    [
        ("user", "{prompt} {text} It was", "The acting"),
        ("user", "{text} {prompt}", " the acting"),
        ("user", "Review : {prompt}\n{text}", " the acting"),
        ("system", "{prompt} {text} It was", "The acting"),
        ("system", "Great! {prompt} {text}", " the acting"),
        ("system", "{text} It was", "The acting"),
    ],
)
def test_a_chat_is_what_its_template_writes(chat_tokenizer: Any, chat: str, template: str, prompt: str) -> None:
    verbalizer = Verbalizer(template, WORDS, chat=chat)
    assert verbalizer.placement == MARKED
    front, _, back = template.partition("{prompt}") if "{prompt}" in template else ("", "", template)
    content = (front.rstrip(" ") + prompt + back).replace("{text}", "dull")
    messages = [{"role": "user", "content": content}]
    if chat == "system":
        messages = [{"role": "system", "content": front.rstrip(" ") + prompt}]
        messages += [{"role": "user", "content": back.replace("{text}", "dull").strip()}]
    pasted = chat_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert verbalizer.fill("dull", prompt, chat_tokenizer) == pasted
    (read,) = read_rows([verbalizer.encode(chat_tokenizer, "dull", 1)], (), MARKED)
    ids = MARKED.encode_prompt(chat_tokenizer, prompt)
    assert [*read.before, *ids, *read.after] == chat_tokenizer.encode(pasted + "great")
    assert chat_tokenizer.decode(list(read.ids[read.first :])) == "great"  # right after the turn's name and line break


def test_what_a_chat_cannot_be_is_refused(byte_tokenizer: Any, chat_tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="`chat='assistant'` is unknown; use one of system, user"):
        Verbalizer("{prompt} {text}", WORDS, chat="assistant")
    with pytest.raises(ValueError, match=r"puts all up to {prompt} into the system's turn"):
        Verbalizer("{text} {prompt}", WORDS, chat="system")
    with pytest.raises(ValueError, match="needs a tokenizer with a chat template"):
        Verbalizer("{prompt} {text}", WORDS, chat="user").encode(byte_tokenizer, "dull", 0)
    with pytest.raises(ValueError, match="`tokenizer` is a NoneType"):
        Verbalizer("{prompt} {text}", WORDS, chat="user").fill("dull")
    chat_tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    with pytest.raises(ValueError, match="does not hold the system turn as it is"):
        Verbalizer("{prompt} {text}", WORDS, chat="system").encode(chat_tokenizer, "dull", 0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_inputs_to_generate_from_are_rows_without_answers(tokenizer: Any, side: str) -> None:
    for template in ("{prompt} {text} It was", "{text} {prompt}", "Review : {prompt}\n{text}"):
        verbalizer, texts = Verbalizer(template, WORDS), ["The film was dull", "great"]
        batch = verbalizer.model_inputs(tokenizer, texts, padding_side=side)
        for i, text in enumerate(texts):
            row = verbalizer.encode(tokenizer, text, 0)
            length = len(row["input_ids"]) - 1
            part = slice(-length, None) if side == "left" else slice(length)
            assert batch["input_ids"][i, part].tolist() == row["input_ids"][:-1]
            assert batch["attention_mask"][i, part].tolist() == row["attention_mask"][:-1]
            assert batch["attention_mask"][i].sum() == sum(row["attention_mask"]) - 1
        assert batch["input_ids"].dtype == torch.long
    with pytest.raises(ValueError, match="`padding_side='up'` is unknown"):
        verbalizer.model_inputs(tokenizer, texts, padding_side="up")

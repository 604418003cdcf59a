"""Which tokens a prompt may use."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from peft_interp import embedded
from peft_interp.text.token_filter import TOKEN_FILTERS, allowed_tokens
from peft_interp.text.tokenization import leading_token_ids, named_token_ids, vocabulary_texts


def table_for(tokenizer: Any, spare_rows: int = 0) -> Tensor:
    return torch.ones(len(tokenizer) + spare_rows, 4)


def texts_of(mask: Tensor, tokenizer: Any) -> set[str]:
    texts = vocabulary_texts(tokenizer, len(mask))
    return {texts[i] for i in mask.nonzero().flatten().tolist()}


def test_vocabulary_texts_show_the_blank_in_front(tokenizer: Any) -> None:
    texts = vocabulary_texts(tokenizer, len(tokenizer) + 2)
    great = tokenizer.encode("The great", add_special_tokens=False)[-1]
    assert texts[great] == " great"
    assert texts[-2:] == ["", ""]


def test_every_kind_is_a_part_of_the_one_before(tokenizer: Any) -> None:
    kinds = [kind for kind in TOKEN_FILTERS if kind != "lines"]
    masks = [allowed_tokens(table_for(tokenizer), tokenizer, kind) for kind in kinds]
    sizes = [int(mask.sum()) for mask in masks]
    assert all(bool((inner <= outer).all()) for outer, inner in pairwise(masks))
    assert sizes[0] > sizes[1] >= sizes[2] > sizes[3] > 10


def test_words_are_a_blank_and_ascii_letters(tokenizer: Any) -> None:
    words = texts_of(allowed_tokens(table_for(tokenizer), tokenizer, "words"), tokenizer)
    assert {" great", " film", " the"} <= words
    assert all(word[0] == " " and word[1:].isalpha() and word.isascii() for word in words)


def test_printable_leaves_out_blanks_control_characters_and_half_characters(byte_tokenizer: Any) -> None:
    printable = texts_of(allowed_tokens(table_for(byte_tokenizer), byte_tokenizer, "printable"), byte_tokenizer)
    everything = texts_of(allowed_tokens(table_for(byte_tokenizer), byte_tokenizer), byte_tokenizer)
    assert {"\n", "\t", " ", "\ufffd"} <= everything
    assert not {"\n", "\t", " ", "\ufffd"} & printable
    assert {"!", " great"} <= printable


def test_ascii_leaves_out_other_scripts() -> None:
    core = Tokenizer(models.WordLevel({"<unk>": 0, "gut": 1, "schön": 2, "美": 3}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    table = torch.ones(4, 2)
    assert allowed_tokens(table, tokenizer, "printable").tolist() == [False, True, True, True]
    assert allowed_tokens(table, tokenizer, "ascii").tolist() == [False, True, False, False]


def test_a_filtered_token_encodes_back_to_itself(tokenizer: Any) -> None:
    texts = vocabulary_texts(tokenizer, len(tokenizer))
    anchor = tokenizer.encode("a", add_special_tokens=False)
    for i in allowed_tokens(table_for(tokenizer), tokenizer, "printable").nonzero().flatten().tolist():
        alone = tokenizer.encode(texts[i], add_special_tokens=False)
        following = tokenizer.encode("a" + texts[i], add_special_tokens=False)
        assert [i] == alone or [*anchor, i] == following, texts[i]


def test_a_token_that_no_text_leads_to_is_left_out() -> None:
    core = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2, "ba": 3}, [("a", "b")]))  # no merge makes "ba"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    assert allowed_tokens(torch.ones(4, 2), tokenizer, "printable").tolist() == [True, True, True, False]


def test_special_added_and_unused_tokens_are_never_allowed(tokenizer: Any) -> None:
    mask = allowed_tokens(table_for(tokenizer, spare_rows=7), tokenizer)
    assert not mask[-7:].any()
    assert not mask[tokenizer.all_special_ids].any()
    assert not mask[list(tokenizer.added_tokens_decoder)].any()
    assert mask.any()


def test_a_hole_in_the_vocabulary_is_unused() -> None:
    core = Tokenizer(models.WordLevel({"<unk>": 0, "one": 1, "four": 4}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    for kind in ("all", "printable"):
        mask = allowed_tokens(torch.ones(6, 2), tokenizer, kind)
        assert mask.tolist() == [False, True, False, False, True, False], kind


def test_zero_rows_are_never_allowed() -> None:
    table = torch.ones(5, 3)
    table[3] = 0
    assert allowed_tokens(table).tolist() == [True, True, True, False, True]


def test_banned_ids_are_left_out_and_must_exist() -> None:
    assert allowed_tokens(torch.ones(4, 2), banned_token_ids=[1, 3]).tolist() == [True, False, True, False]
    for outside in (4, -1):
        with pytest.raises(ValueError, match=rf"\[{outside}\] are not in the vocabulary \(0 to 3\); remove"):
            allowed_tokens(torch.ones(4, 2), banned_token_ids=[outside])


@pytest.mark.parametrize("spelling", ["great", " Great", "GREAT "])
def test_a_banned_word_is_banned_with_and_without_blank_and_in_any_case(tokenizer: Any, spelling: str) -> None:
    before = texts_of(allowed_tokens(table_for(tokenizer), tokenizer), tokenizer)
    after = texts_of(allowed_tokens(table_for(tokenizer), tokenizer, banned_words=[spelling]), tokenizer)
    gone = before - after
    assert len(gone) >= 2
    assert gone == {text for text in before if text.strip().lower() == "great"}


def test_a_longer_word_is_not_banned_with_a_shorter_one(byte_tokenizer: Any) -> None:
    with pytest.warns(UserWarning, match=r"`banned_words` \['terr'\] are no single tokens .* so nothing is banned"):
        mask = allowed_tokens(table_for(byte_tokenizer), byte_tokenizer, banned_words=["terr", "great"])
    assert " terrible" in texts_of(mask, byte_tokenizer)
    assert " great" not in texts_of(mask, byte_tokenizer)


def test_a_filter_that_leaves_nothing_says_so() -> None:
    with pytest.raises(ValueError, match=r"no token is left.*3 banned ids.*all 3 rows; loosen"):
        allowed_tokens(torch.ones(3, 2), banned_token_ids=[0, 1, 2])


@pytest.mark.parametrize("kind", ["words", "ascii"])
def test_a_vocabulary_that_has_none_of_a_kind_says_so(kind: str) -> None:
    core = Tokenizer(
        models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "电": 3, "影": 4, "好": 5}, unk_token="<unk>")
    )
    core.pre_tokenizer, core.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    with pytest.raises(ValueError, match=rf"no token is left: `allowed_tokens='{kind}'`"):
        allowed_tokens(torch.ones(6, 2), tokenizer, kind=kind)


def test_lines_are_ascii_and_where_they_end(tokenizer: Any) -> None:
    ascii_only, lines = (allowed_tokens(table_for(tokenizer), tokenizer, kind) for kind in ("ascii", "lines"))
    more = (lines & ~ascii_only).nonzero().flatten().tolist()
    assert not (ascii_only & ~lines).any()
    assert all(tokenizer.decode([i]).endswith("\n") for i in more)


def test_a_token_may_be_a_sign_and_the_end_of_its_line() -> None:
    """As in Llama 3's and Qwen's vocabularies, whose tokenizers never part the two."""
    words = [".", "\n", ".\n", "\n\n", "\u00e9\n", "a", " a"]
    own = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [(".", "\n"), ("\n", "\n")]))
    own.decoder = decoders.Fuse()
    given = PreTrainedTokenizerFast(tokenizer_object=own)
    mask = allowed_tokens(torch.ones(len(words), 2), given, "lines").tolist()
    assert [word for word, allowed in zip(words, mask, strict=True) if allowed] == [".", "\n", ".\n", "a"]


def test_lines_of_the_embedded_model_may_end() -> None:
    tokenizer = embedded.load_tokenizer()
    (end,) = tokenizer.encode("\n")
    assert allowed_tokens(torch.ones(len(tokenizer), 2), tokenizer, "lines")[end]
    assert not allowed_tokens(torch.ones(len(tokenizer), 2), tokenizer, "printable")[end]


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"'latin'.*all, printable, ascii, lines, words"):
        allowed_tokens(torch.ones(3, 2), kind="latin")


@pytest.mark.parametrize("filters", [{"kind": "words"}, {"banned_words": ["good"]}])
def test_a_filter_by_text_asks_for_the_tokenizer(filters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"need the tokenizer's texts; set `tokenizer_name_or_path`"):
        allowed_tokens(torch.ones(3, 2), **filters)


def test_ids_named_by_a_config_are_collected_once_each() -> None:
    config = SimpleNamespace(bos_token_id=5, eos_token_id=[5, 2], pad_token_id=None)
    assert named_token_ids(config, ("bos", "eos", "pad", "sep")) == [2, 5]


def test_only_bos_and_cls_may_lead_a_row(byte_tokenizer: Any, piece_tokenizer: Any) -> None:
    assert leading_token_ids(piece_tokenizer) == [1]
    assert leading_token_ids(byte_tokenizer) == [0]
    core = Tokenizer(models.WordLevel({"[CLS]": 0, "[SEP]": 1, "x": 2}, unk_token="x"))
    assert leading_token_ids(PreTrainedTokenizerFast(tokenizer_object=core, cls_token="[CLS]", sep_token="[SEP]")) == [
        0
    ]

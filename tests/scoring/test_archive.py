"""The archive: lookups, the file, and the trade-off read from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_interp.scoring.archive import Archive, ScoredPrompt, front


def scored(ids: tuple[int, ...], split: str = "dev", **scores: float | None) -> ScoredPrompt:
    return ScoredPrompt(ids, " ".join(map(str, ids)), 3, dict(scores), split=split)


def test_a_prompt_is_found_by_its_ids_on_the_same_examples() -> None:
    archive = Archive()
    first = ScoredPrompt((1, 2), "a b", 0, {"gap": 1.0}, rows=(0, 4))
    archive.add(first)
    assert archive.find([1, 2], rows=(0, 4)) is first
    assert archive.find([1, 2]) is None
    assert archive.find([1, 2], "dev", (0, 4)) is None
    assert archive.find([2, 1], rows=(0, 4)) is None


def test_what_is_written_comes_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "new" / "archive.jsonl"
    archive = Archive()
    archive.add(ScoredPrompt((1, 2), "ä\n", 0, {"gap": 0.1 + 0.2, "style": None}, fits=False, rows=(3,)))
    archive.write(path)
    archive.add(scored((5,), gap=1 / 3))
    archive.write(path)
    archive.write(path)
    back = Archive.read(path)
    assert back.records == archive.records
    assert back.find([1, 2], rows=(3,)) == archive.records[0]
    back.write(path)
    assert len(path.read_text().splitlines()) == 2


def test_damaged_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "archive.jsonl"
    archive = Archive([])
    archive.add(scored((1,), gap=1.0))
    archive.add(scored((2,), gap=2.0))
    archive.write(path)
    whole = path.read_text()
    path.write_text(whole[:-9])
    with pytest.warns(UserWarning, match=r"1 of 2 lines of .* are damaged and left out \(line 2\)"):
        cut = Archive.read(path)
    assert [record.ids for record in cut.records] == [(1,)]
    cut.add(scored((3,), gap=3.0))
    cut.write(path)  # on a line of its own, though the one before has no end
    with pytest.warns(UserWarning, match=r"1 of 3 lines"):
        assert [record.ids for record in Archive.read(path).records] == [(1,), (3,)]
    path.write_bytes(whole[9:].encode() + b"\xff\xfe\n[1]\n{}\n\n")
    with pytest.warns(UserWarning, match=r"4 of 5 lines"):
        assert [record.ids for record in Archive.read(path).records] == [(2,)]


def test_an_older_archive_comes_back_under_todays_names(tmp_path: Path) -> None:
    path = tmp_path / "archive.jsonl"
    archive = Archive()
    archive.add(scored((1,), gap=1.0, repetition=0.5, special_tokens=0.25))
    archive.add(scored((2,), repetition_penalty=0.5, repetition=7.0))  # a reward of the user that is called so
    archive.write(path)
    first, second = Archive.read(path).records
    assert first.scores == {"gap": 1.0, "repetition_penalty": 0.5, "wordless_share": 0.25}
    assert second.scores == {"repetition_penalty": 0.5, "repetition": 7.0}


def test_an_archive_and_its_prompts_are_shown_in_a_few_lines() -> None:
    prompts = [ScoredPrompt(tuple(range(40)), "word " * 60, 3, {f"score_{i}": i / 7 for i in range(30)})] * 3
    for shown in (repr(prompts[0]), repr(Archive(prompts))):
        assert len(shown.splitlines()) <= 12
        assert max(map(len, shown.splitlines())) <= 100
    assert "score_1: 0.1429" in repr(prompts[0])
    assert "records=3, prompts=1" in repr(Archive(prompts))


def test_the_front_holds_what_nothing_beats_in_everything() -> None:
    records = [
        scored((1,), accuracy=0.9, nll=8.0),
        scored((2,), accuracy=0.8, nll=4.0),
        scored((3,), accuracy=0.7, nll=5.0),  # beaten by 2
        scored((4,), accuracy=0.6, nll=2.0),
        scored((5,), accuracy=0.9, nll=9.0),  # beaten by 1
        scored((6,), accuracy=0.9, nll=8.0),  # the same as 1
        scored((7,), accuracy=1.0, nll=None),  # not comparable
        scored((8,), split="train", accuracy=1.0, nll=1.0),
    ]
    assert [r.ids for r in front(records, higher=("accuracy",), lower=("nll",))] == [(1,), (2,), (4,)]
    assert [r.ids for r in front(records, ("accuracy",), ("nll",), split="train")] == [(8,)]
    with pytest.raises(ValueError, match="name at least one score"):
        front(records)


def test_the_front_holds_only_what_compares_and_may_be_chosen() -> None:
    records = [
        ScoredPrompt((1,), "a", 0, {"gap": 90.0}, rows=(0, 1)),
        ScoredPrompt((2,), "b", 0, {"gap": 80.0}, fits=False),
        ScoredPrompt((3,), "c", 0, {"gap": 7.0}),
    ]
    assert [r.ids for r in front(records, higher=("gap",), split="train")] == [(3,)]

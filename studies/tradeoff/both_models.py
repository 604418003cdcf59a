"""What was found on SmolLM2, and the paper's claims on both models side by side, for `docs/studies.md`.

python -m studies.tradeoff.both_models
"""

from pathlib import Path

from peft_interp.records import markdown_table
from studies.readme import put_tables
from studies.tradeoff.claims import all_claims
from studies.tradeoff.outcomes import Outcome, outcomes_of
from studies.tradeoff.report.overview import sentences
from studies.tradeoff.store import read_lines

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "studies.md"
EMBEDDED, SMOLLM2 = (HERE / folder / "results.jsonl.gz" for folder in (".", "smollm2"))


def tables() -> str:
    """Sentences and verdicts, as Markdown, from the published records."""
    embedded, smollm2 = (_outcomes(path) for path in (EMBEDDED, SMOLLM2))
    pairs = zip(all_claims(embedded), all_claims(smollm2), strict=True)
    rows = [[first.statement, first.verdict, second.verdict] for first, second in pairs]
    said = [f"- {sentence}" for sentence in sentences(smollm2)]
    return "\n".join([*said, "", markdown_table(("the paper's claim", "embedded model", "SmolLM2"), rows)])


def _outcomes(path: Path) -> list[Outcome]:
    return outcomes_of(read_lines(path))


if __name__ == "__main__":
    put_tables(PAGE, tables())

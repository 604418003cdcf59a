"""What a study found, written for readers: a page, a Markdown file, and the picture that both show."""

from __future__ import annotations

from pathlib import Path

from studies.tradeoff.config import Study
from studies.tradeoff.report.figure import to_svg
from studies.tradeoff.report.findings import Records, findings
from studies.tradeoff.report.markdown import to_markdown
from studies.tradeoff.report.overview import overview_file
from studies.tradeoff.report.page import to_page


def write_report(folder: Path, study: Study, records: Records, failures: Records, not_run: int) -> None:
    """`report.html`, and `RESULTS.md` with its pictures, `tradeoff.svg` and `fronts.svg`."""
    found = findings(study, records, failures, not_run)
    (folder / "report.html").write_text(to_page(found), encoding="utf-8")
    (folder / "RESULTS.md").write_text(to_markdown(found), encoding="utf-8")
    (folder / "tradeoff.svg").write_text(overview_file(found.outcomes), encoding="utf-8")
    (folder / "fronts.svg").write_text(to_svg(found.outcomes), encoding="utf-8")

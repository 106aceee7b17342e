"""The table of known columns in the documentation is that of the code."""

from __future__ import annotations

from tests.paths import ROOT

from rollkit._rollouts.fields import FIELDS, fill_of

PER = {
    "prompt": "prompt token",
    "response": "response token",
    "sequence": "sequence token",
    "response or sequence": "response or sequence token",
    "token or row": "response token or row",
    "row": "row",
}
TOKENS = ("prompt_token_ids", "response_ids", "input_ids")


def test_the_documented_columns_are_the_known_ones() -> None:
    text = (ROOT / "docs" / "rollouts.md").read_text().partition("## Columns")[2]
    table = [line for line in text.partition("| who uses it |")[2].splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    rows = rows[: len(FIELDS)]
    assert [row[0].strip("`") for row in rows] == list(FIELDS)
    for (name, field), (_, per, dtype, fill, *_) in zip(FIELDS.items(), rows, strict=True):
        assert per == PER[field.per] + ", last ones may lack" * field.short, name
        assert dtype == ("as it comes" if field.dtype is None else field.dtype.name), name
        if field.lists:
            assert fill == "no entries"
            continue
        wanted = "`pad_id`" if name in TOKENS else "" if field.per == "row" else str(field.fill)
        wanted = "0, 1, … topk − 1" if list(fill_of(name, (3,)) if field.short else []) else wanted
        assert fill == wanted, name

"""The README says what the registry offers."""

from pathlib import Path

from ops.operations_table import with_table

README = Path(__file__).parents[2] / "README.md"


def test_the_table_in_the_readme_is_the_registry() -> None:
    text = README.read_text("utf-8")
    assert text == with_table(text), "run: python -m ops.operations_table"

"""Tables for people."""

from collections.abc import Collection, Sequence


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, words: Collection[int] = (0,)
) -> str:
    """Write a table in Markdown.

    Args:
        header: Titles of the columns.
        rows: Cells, as many a row as there are titles.
        words: Numbers of the columns that hold words; the others hold numbers, set to the right.

    Returns:
        Its lines, without a line break at the end.
    """
    marks = ["---" if column in words else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, marks, *rows))

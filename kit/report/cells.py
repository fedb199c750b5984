"""Tables as text: numbers as a reader wants them, Markdown and LaTeX."""

import math
import re
from collections.abc import Sequence

import pandas as pd

PAGE_ROWS = 45  # a longer LaTeX table becomes a longtable


def shown(cell: object, places: int | None = None) -> str:
    """A cell as a reader wants it: a float with `places` decimals (default: one to four, by size),
    a dash for no value.
    """
    if cell is None or cell is pd.NA or (isinstance(cell, float) and math.isnan(cell)):
        return "–"
    if not isinstance(cell, float):
        return str(cell)
    if math.isinf(cell):
        return "∞" if cell > 0 else "−∞"
    places = _places([cell]) if places is None else places
    return f"{cell:.1e}" if cell and abs(cell) < 0.5 * 10.0**-places else f"{cell:.{places}f}"


def _places(numbers) -> int:
    """Decimals that suit the largest of `numbers` (percentages: two); none if all are whole."""
    finite = [abs(x) for x in numbers if math.isfinite(x)]
    if all(x == int(x) for x in finite):
        return 0
    return sum(max(finite) < limit for limit in (1, 10, 1000)) + 1


def readable(table: pd.DataFrame, places: int | None = None) -> pd.DataFrame:
    """Every cell as text, the floats of a column with the same number of decimals (`places`, or
    what its largest value asks for).
    """
    text = {}
    for name in table:
        floats = [cell for cell in table[name] if isinstance(cell, float) and math.isfinite(cell)]
        digits = _places(floats) if places is None and floats else places
        text[name] = [shown(cell, digits) for cell in table[name]]
    return pd.DataFrame(text, columns=table.columns, dtype=object)


def _latex(text: str) -> str:
    table = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{c: "\\" + c for c in "&%$#_{}"},
    }
    return "".join(table.get(character, character) for character in str(text))


def flat(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a meaningful index as ordinary columns and one-level column names."""
    named = table if isinstance(table.index, pd.RangeIndex) else table.reset_index()
    plain = named.copy()
    plain.columns = [
        " ".join(str(part) for part in c if str(part)) if isinstance(c, tuple) else str(c)
        for c in named.columns
    ]
    return plain


def markdown_table(text: pd.DataFrame, sides: Sequence[str]) -> str:
    """A table of text in Markdown; `sides` is "left" or "right" for each column."""
    piped = text.map(lambda cell: re.sub(r"\s*\n\s*", " ", cell).replace("|", "\\|"))
    return piped.to_markdown(
        index=False, disable_numparse=True, colalign=sides if len(piped) else None
    )


def latex_table(text: pd.DataFrame, sides: Sequence[str], caption: str, label: str) -> str:
    """A table of text in LaTeX with booktabs' rules; a long one goes over several pages."""
    rows = [
        " & ".join(_latex(cell) for cell in row) + r" \\"
        for row in [text.columns, *text.itertuples(index=False)]
    ]
    columns, named = (
        "".join(side[0] for side in sides),
        rf"\caption{{{_latex(caption)}}}\label{{tab:{label}}}",
    )
    if len(text) > PAGE_ROWS:
        lines = [
            rf"\begin{{longtable}}{{{columns}}}",
            named + r"\\",
            r"\toprule",
            rows[0],
            r"\midrule",
            r"\endhead",
            *rows[1:],
            r"\bottomrule",
            r"\end{longtable}",
        ]
        return "\n".join(lines) + "\n"
    lines = [
        r"\begin{table}",
        r"\centering",
        named,
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        rows[0],
        r"\midrule",
        *rows[1:],
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"

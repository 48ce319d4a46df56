"""Pieces of the pages: escaped text, tables, figures that lie inside the file, sections."""

from __future__ import annotations

import base64
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from markupsafe import Markup, escape

from histoweft import gaps

NOTHING = "–"
"""What stands in a cell that has no value."""

SHORT = 20
"""Characters up to which the text of a cell is kept on one line."""

LARGE = 200_000
"""Bytes of a png above which a page holds it as webp."""

DISPLAYED = 0.75
"""Size at which figures are shown, of their pixels: text in them is then as large as the text around."""

# A slash that starts a path: not inside a word, an address or another path. A single name after it is left alone.
_ABSOLUTE = re.compile(r"""(?<![\w/.:~-])(?:/|[A-Za-z]:\\|~/)(?:[^\s/\\'"<>|:;,]+[/\\])+[^\s/\\'"<>|:;,)]*""")


class Html(Markup):
    """Markup that a notebook shows; whatever is formatted into it is escaped unless it is markup itself."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"<html of {len(self):,} characters>"


def portable(text: str, base: str | os.PathLike | None = None) -> str:
    """Return the text with every absolute path made one that says nothing about the machine.

    Parameters
    ----------
    text
        Any text, such as a warning.
    base
        Folder whose content is named relative to it; the working folder when None.

    Returns
    -------
    Paths below `base` are relative to it; of others the last part stays, behind an ellipsis.
    """
    root = Path.cwd() if base is None else Path(base)

    def shorten(match: re.Match) -> str:
        found = match.group()
        path = Path(found)
        if path.is_relative_to(root):
            return path.relative_to(root).as_posix()
        parts = [part for part in re.split(r"[/\\]", found) if part]
        return f"…/{parts[-1]}"

    return _ABSOLUTE.sub(shorten, text)


def portable_values(value: Any, base: str | os.PathLike | None = None) -> Any:
    """Return a copy of nested dicts and lists in which every text went through `portable`."""
    if isinstance(value, dict):
        return {key: portable_values(item, base) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [portable_values(item, base) for item in value]
    return portable(value, base) if isinstance(value, str) else value


def is_missing(value: Any) -> bool:
    """Return whether a value is None or not a number."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: Any, digits: int = 3) -> str:
    """Return a number as people read it: whole numbers with thousands separated, others to `digits` figures.

    Parameters
    ----------
    value
        A number; None and NaN give a dash.
    digits
        Significant figures of numbers that are not whole.
    """
    if is_missing(value):
        return NOTHING
    if isinstance(value, float) and not math.isfinite(value):
        return "∞" if value > 0 else "−∞"
    if float(value) == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", "−")
    value = float(f"{value:.{digits}g}") if abs(value) < 10**digits else value
    if abs(value) >= 10**digits:
        return f"{value:,.0f}".replace("-", "−")
    if abs(value) < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}".replace("-", "−")


def plain(value: Any) -> str:
    """Return an option as it was set: no digit more than needed, thousands separated."""
    return NOTHING if is_missing(value) else f"{value:,.10g}"


def percent(part: float, whole: float) -> str:
    """Return a share as whole percent, but never 0 or 100 unless it is exactly that."""
    if not whole:
        return NOTHING
    share = 100 * part / whole
    if 0 < share < 1:
        return "<1 %"
    if 99 < share < 100:
        return ">99 %"
    return f"{share:.0f} %"


def slug(text: str) -> str:
    """Return a name for an anchor."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"


def joined(parts: Iterable[Any], separator: str = "") -> Html:
    """Return parts in a row, escaping those that are no markup."""
    return Html(separator).join(parts)


def paragraph(*parts: Any, kind: str = "") -> Html:
    """Return a paragraph."""
    return Html('<p class="{}">{}</p>').format(kind, joined(parts)) if kind else Html("<p>{}</p>").format(joined(parts))


def section(title: str, *content: Any, anchor: str = "") -> Html:
    """Return a part of a page with its heading; the page's contents list it."""
    return Html('<section id="{}">\n<h2>{}</h2>\n{}\n</section>').format(
        anchor or slug(title), title, joined(content, "\n")
    )


def folded(title: Any, *content: Any) -> Html:
    """Return content that opens when its title is chosen; on paper it is open."""
    return Html("<details><summary>{}</summary>\n{}</details>").format(title, joined(content, "\n"))


def notice(kind: str, title: str, items: Sequence[Any]) -> Html:
    """Return a box.

    Parameters
    ----------
    kind
        ``warning``, ``good``, ``plain`` or ``absent``.
    title
        Its heading; may be empty.
    items
        One line each.
    """
    if len(items) == 1:
        body = paragraph(items[0])
    else:
        body = Html("<ul>{}</ul>").format(joined(Html("<li>{}</li>").format(item) for item in items))
    head = Html('<p class="head">{}</p>').format(title) if title else ""
    return Html('<div class="notice {}" role="note">{}{}</div>').format(kind, head, body)


def missing(gap: gaps.Gap, what: str = "") -> Html:
    """Return what stands in place of a result that is not there: grey, or as a warning where a job failed."""
    return notice("warning" if gap.failed else "absent", what, [portable(gap.words)])


def remark(text: str) -> Html:
    """Return a warning as a sentence; the code that programs look for (``off_tissue: ...``) stands behind it, small."""
    found = re.match(r"([a-z][a-z0-9]*_[a-z0-9_]*|[a-z]{4,}): (?=\S)(.+)", text, re.DOTALL)
    code, said = found.groups() if found else ("", text)
    tag = Html(' <span class="tag">{}</span>').format(code) if code else ""
    return joined([said[:1].upper() + said[1:], tag])


def key_numbers(entries: Sequence[tuple[str, str, str]]) -> Html:
    """Return a grid of large numbers.

    Parameters
    ----------
    entries
        Label, value, and a word on it (may be empty).
    """
    return Html('<dl class="numbers">{}</dl>').format(
        joined(
            Html('<div><dt>{}</dt><dd><span class="value">{}</span>{}</dd></div>').format(
                label, value, Html(' <span class="aside">{}</span>').format(aside) if aside else ""
            )
            for label, value, aside in entries
        )
    )


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    row_kinds: Sequence[str] | None = None,
    tall: bool = False,
    digits: int = 3,
    empty: str = "Nothing to show.",
) -> Html:
    """Return a table; columns that hold numbers are set right, on one line of figures.

    Parameters
    ----------
    columns
        Headings.
    rows
        Cells: text, numbers, None, or markup.
    row_kinds
        A class for each row, or "".
    tall
        Keep a long table in a box that scrolls (it prints whole).
    digits
        Significant figures of numbers.
    empty
        What to say when there are no rows.
    """
    rows = [list(row) for row in rows]
    if not rows:
        return paragraph(empty, kind="quiet")
    numeric = [_holds_numbers([row[i] for row in rows]) for i in range(len(columns))]
    places = [_decimals([row[i] for row in rows], digits) if n else None for i, n in enumerate(numeric)]
    head = joined(
        Html('<th scope="col" class="n">{}</th>' if n else '<th scope="col">{}</th>').format(name)
        for name, n in zip(columns, numeric, strict=True)
    )
    body = joined(
        Html("<tr{}>{}</tr>\n").format(
            Html(' class="{}"').format(kind) if kind else "",
            joined(_cell(*cell, digits) for cell in zip(row, numeric, places, strict=True)),
        )
        for row, kind in zip(rows, row_kinds or [""] * len(rows), strict=True)
    )
    # A box that scrolls must be reachable from the keyboard.
    return Html(
        '<div class="table{}" tabindex="0"><table><thead><tr>{}</tr></thead><tbody>\n{}</tbody></table></div>'
    ).format(" tall" if tall else "", head, body)


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool | str) and hasattr(value, "__float__")


def _holds_numbers(values: list[Any]) -> bool:
    there = [value for value in values if not is_missing(value)]
    return bool(there) and all(_is_number(value) for value in there)


def _decimals(values: list[Any], digits: int) -> int | None:
    """Return the decimals that suit a whole column; None where its values span too much for one choice."""
    sizes = [abs(float(value)) for value in values if not is_missing(value) and value != 0]
    if not sizes or not all(map(math.isfinite, sizes)) or all(size == int(size) for size in sizes):
        return None
    # A largest value of just 1 or 100 must not cost the others a decimal.
    decimals = max(0, digits - 1 - math.floor(math.log10(0.999 * max(sizes))))
    fits = min(sizes) >= (10**-decimals if decimals else 100)
    return decimals if fits and decimals <= 4 else None


def _cell(value: Any, numeric: bool, decimals: int | None, digits: int) -> Html:
    if decimals is not None and not is_missing(value):
        value = f"{value:,.{decimals}f}".replace("-", "−")
    elif is_missing(value) or _is_number(value):
        value = number(None if is_missing(value) else value, digits)
    elif isinstance(value, bool):
        value = "yes" if value else "no"
    seen = value.striptags() if isinstance(value, Markup) else str(value)
    kind = "n" if numeric else "short" if len(seen) <= SHORT else ""
    return Html('<td class="{}">{}</td>').format(kind, value) if kind else Html("<td>{}</td>").format(value)


def data_uri(content: bytes, kind: str) -> str:
    """Return bytes as an address that holds them itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def figure(path: str | os.PathLike, alt: str, caption: Any, anchor: str = "", source: Any = "") -> Html:
    """Return a picture with its caption, the picture inside the page.

    Parameters
    ----------
    path
        A png.
    alt
        What it shows, for those who cannot see it.
    caption
        Text or markup below it.
    anchor
        Name to link to.
    source
        Markup under the caption: where the picture comes from.
    """
    if gap := gaps.of(path):
        return joined([Html('<div id="{}"></div>').format(anchor) if anchor else "", missing(gap, alt)])
    content = Path(path).read_bytes()
    width, height = (round(DISPLAYED * pixels) for pixels in png_size(content))
    address = data_uri(content, "image/png") if len(content) < LARGE else _webp(path)
    return Html(
        '<figure{}><img src="{}" width="{}" height="{}" alt="{}"><figcaption>{}{}</figcaption></figure>'
    ).format(Html(' id="{}"').format(anchor) if anchor else "", address, width, height, alt, caption, source)


def _webp(path: str | os.PathLike) -> str:
    """Return a picture as webp, a tenth of a png's size where it shows tissue; the png stays as a file."""
    import io

    from PIL import Image

    stream = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(stream, "WEBP", quality=80, method=4)
    return data_uri(stream.getvalue(), "image/webp")


def png_size(content: bytes) -> tuple[int, int]:
    """Return width and height of a png in pixels.

    Raises
    ------
    ValueError
        The bytes are no png.
    """
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("not a png")
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def thumbnail(path: str | os.PathLike, width: int = 600) -> str:
    """Return a small copy of a picture as an address that holds it."""
    import io

    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB")
        small.thumbnail((width, 4 * width), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=86, optimize=True)
    return data_uri(stream.getvalue(), "image/jpeg")


def caption_text(path: str | os.PathLike, sample: str = "") -> str:
    """Fill in a caption of Snakemake's report, so that both reports say the same.

    Parameters
    ----------
    path
        An .rst of workflow/report; jinja fills in `snakemake.wildcards`.
    sample
        Value of the wildcard.
    """
    from jinja2 import Template

    snakemake = SimpleNamespace(wildcards=SimpleNamespace(sample=sample))
    return Template(Path(path).read_text(encoding="utf-8")).render(snakemake=snakemake)


def caption(text: str) -> Html:
    """Return a filled-in caption as markup: paragraphs with ``literals`` and *emphasis*."""
    blocks = (paragraph(_inline(block)) for block in re.split(r"\n\s*\n", text.strip()))
    return Html('<div class="caption">{}</div>').format(joined(blocks))


def _inline(text: str) -> Html:
    escaped = str(escape(" ".join(text.split())))
    escaped = re.sub(r"``(.+?)``", r"<code>\1</code>", escaped)
    return Html(re.sub(r"(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])", r"<em>\1</em>", escaped))

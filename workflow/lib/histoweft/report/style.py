"""How the pages look: one style sheet, light and dark, screen and paper, no font and no script from elsewhere."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #fbfaf8; --card: #ffffff; --ink: #22262b; --soft: #5d6670; --line: #e2dfd9; --accent: #8a1c5b;
  --accent-soft: #f7ecf2; --warn: #8a4b00; --warn-back: #fff5e3; --warn-line: #e9b65a; --good: #1c6446;
  --good-back: #eaf6f0; --good-line: #7cc0a1; --stripe: #f6f4f0; --floor: #eef1f6;
  --shadow: 0 1px 2px rgb(0 0 0 / 5%), 0 4px 14px rgb(0 0 0 / 4%);
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15171a; --card: #1d2024; --ink: #e6e4e0; --soft: #a2a9b1; --line: #33373d; --accent: #f08cc0;
    --accent-soft: #35202c; --warn: #ffcf87; --warn-back: #33270f; --warn-line: #8d6a25; --good: #8fdcb8;
    --good-back: #142b22; --good-line: #2f6b52; --stripe: #22262b; --floor: #252c38; --shadow: none;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1.2rem; -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Helvetica Neue", sans-serif;
  display: grid; grid-template-columns: 15.5rem minmax(0, 1fr);
}
a { color: var(--accent); text-underline-offset: 0.15em; text-decoration-thickness: 0.06em; }
a:focus-visible, .table:focus-visible, summary:focus-visible {
  outline: 2px solid var(--accent); outline-offset: 2px;
}
.skip { position: absolute; left: -100rem; }
.skip:focus { left: 1rem; top: 1rem; background: var(--card); padding: 0.4rem 0.8rem; z-index: 2; }
.contents {
  position: sticky; top: 0; align-self: start; height: 100vh; overflow-y: auto; padding: 1.9rem 1.2rem 2rem 1.6rem;
  border-right: 1px solid var(--line); font-size: 0.9rem;
}
.contents .brand { margin: 0 0 1.3rem; font-weight: 650; letter-spacing: 0.01em; }
.contents .brand span { display: block; font-weight: 400; color: var(--soft); overflow-wrap: anywhere; }
.contents ol { list-style: none; margin: 0; padding: 0; }
.contents li a { display: block; padding: 0.27rem 0; color: var(--ink); text-decoration: none; }
.contents li a:hover { color: var(--accent); }
.contents .up { margin: 0 0 1.2rem; }
main { padding: 2.3rem clamp(1.2rem, 3.2vw, 4rem) 3rem; max-width: 94rem; width: 100%; }
header h1 {
  margin: 0 0 0.3rem; font-size: 2.1rem; line-height: 1.2; letter-spacing: -0.015em; overflow-wrap: anywhere;
}
header .lead { font-size: 1.06rem; max-width: 62rem; margin: 0.5rem 0 0.8rem; }
header .tags { display: flex; flex-wrap: wrap; gap: 0.45rem; margin: 0.7rem 0 0; padding: 0; list-style: none; }
header .tags li {
  background: var(--accent-soft); color: var(--ink); border-radius: 99px; padding: 0.08rem 0.8rem; font-size: 0.9rem;
  overflow-wrap: anywhere;
}
header .tags b { font-weight: 400; color: var(--soft); margin-right: 0.35em; }
header { margin-bottom: 1.4rem; }
section { margin-top: 2.6rem; }
h2 { font-size: 1.4rem; letter-spacing: -0.01em; line-height: 1.3; margin: 0 0 0.8rem; }
h3 { font-size: 1.03rem; margin: 1.7rem 0 0.55rem; }
p { margin: 0 0 0.8rem; max-width: 54rem; }
.quiet { color: var(--soft); }
.caption { font-size: 0.92rem; line-height: 1.55; color: var(--soft); }
.caption p { margin: 0 0 0.5rem; max-width: 60rem; }
.notes { margin: -0.4rem 0 1.1rem; padding-left: 1.3rem; max-width: 64rem; }
figcaption .caption, figcaption .caption p { font-size: 1em; color: inherit; }
code, pre { font-family: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, monospace; font-size: 0.87em; }
code { background: var(--stripe); border-radius: 4px; padding: 0.06em 0.32em; overflow-wrap: anywhere; }
pre {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 0.9rem 1.1rem;
  overflow-x: auto;
  line-height: 1.5; margin: 0 0 1rem; white-space: pre-wrap; overflow-wrap: anywhere;
}
pre code { background: none; padding: 0; font-size: 1em; }
.notice {
  border: 1px solid var(--line); border-left-width: 5px; border-radius: 8px; padding: 0.8rem 1.15rem;
  margin: 0 0 1rem;
}
.notice .head { margin: 0 0 0.25rem; font-weight: 650; font-size: 1.03rem; }
.notice p, .notice ul { margin: 0; max-width: 66rem; }
.notice ul { padding-left: 1.15rem; }
.notice li { margin: 0.12rem 0; }
.notice.warning { background: var(--warn-back); border-color: var(--warn-line); }
.notice.warning .head { color: var(--warn); }
.notice.good { background: var(--good-back); border-color: var(--good-line); }
.notice.good .head { color: var(--good); }
.notice.absent { background: var(--card); border-color: var(--soft); color: var(--soft); border-style: dashed; }
.notice.plain { background: var(--card); }
.numbers {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(11.4rem, 1fr)); gap: 0.8rem; margin: 0 0 1rem;
}
.numbers div {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 0.7rem 0.95rem;
  box-shadow: var(--shadow);
}
.numbers dt { color: var(--soft); font-size: 0.85rem; line-height: 1.35; }
.numbers dd { margin: 0.15rem 0 0; }
.numbers .value { font-size: 1.5rem; font-weight: 620; letter-spacing: -0.01em; font-variant-numeric: tabular-nums; }
.numbers .aside { color: var(--soft); font-size: 0.85rem; white-space: nowrap; }
.table {
  overflow-x: auto; margin: 0 0 1.1rem; border: 1px solid var(--line); border-radius: 10px;
  background: var(--card); width: fit-content; max-width: 100%;
}
.table.tall { max-height: 34rem; overflow-y: auto; }
table { border-collapse: collapse; font-size: 0.9rem; line-height: 1.4; }
th, td { padding: 0.38rem 0.7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
td { min-width: 11rem; max-width: 34rem; overflow-wrap: break-word; }
td.n, td.short { min-width: 0; }
thead th {
  position: sticky; top: 0; background: var(--card); box-shadow: inset 0 -1px 0 var(--line); font-weight: 600;
  color: var(--soft); vertical-align: bottom; line-height: 1.3;
}
thead th.n { white-space: normal; }
td.short { white-space: nowrap; }
tbody tr:last-child td { border-bottom: 0; }
tbody tr:nth-child(even) { background: var(--stripe); }
tr.floor, tbody tr.floor:nth-child(even) { background: var(--floor); }
tr.group td { border-top: 2px solid var(--line); }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tag {
  border: 1px solid var(--line); border-radius: 99px; padding: 0 0.5em; font-size: 0.82em; color: var(--soft);
  white-space: nowrap;
}
.tag.good { color: var(--good); border-color: var(--good-line); background: var(--good-back); }
.tag.lost { color: var(--warn); border-color: var(--warn-line); background: var(--warn-back); font-weight: 600; }
.chip {
  display: inline-block; width: 0.75em; height: 0.75em; border-radius: 50%; margin-right: 0.5em;
  vertical-align: -0.04em;
}
figure {
  margin: 0 0 1.5rem; background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  overflow: hidden; box-shadow: var(--shadow); width: fit-content; max-width: 100%;
}
figure img { display: block; max-width: 100%; height: auto; background: #fff; margin: 0 auto; padding: 0.5rem; }
figcaption {
  padding: 0.85rem 1.2rem 0.35rem; border-top: 1px solid var(--line); font-size: 0.92rem; line-height: 1.55;
  width: 0; min-width: 100%;
}
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: 1.1rem; }
.gallery figure { width: auto; margin: 0; }
.gallery img { width: 100%; height: 19rem; object-fit: contain; }
.gallery figure > a { display: block; }
.gallery figcaption span { color: var(--soft); }
.source {
  display: flex; flex-wrap: wrap; gap: 0.1rem 1rem; max-width: none;
  margin: 0.2rem 0 0.5rem; font-size: 0.82rem; line-height: 1.5; color: var(--soft); overflow-wrap: anywhere;
}
.source code { background: none; padding: 0; }
section > .source { margin: -0.35rem 0 1.3rem; }
.button {
  display: inline-block; margin-right: 0.35rem; padding: 0.28rem 0.95rem; border-radius: 99px; text-decoration: none;
  background: var(--accent); color: var(--page); font-weight: 600;
}
.answers { margin: 0 0 1rem; max-width: 76rem; }
.answers div {
  display: grid; grid-template-columns: 13.5rem minmax(0, 1fr); gap: 0.2rem 1.6rem; padding: 0.75rem 0;
  border-top: 1px solid var(--line);
}
.answers div:last-child { border-bottom: 1px solid var(--line); }
.answers dd { margin: 0; }
.more { white-space: nowrap; color: var(--soft); font-size: 0.9rem; }
.references { font-size: 0.9rem; padding-left: 1.2rem; max-width: 62rem; }
.references li { margin: 0.2rem 0; }
details { margin: 0 0 0.5rem; }
summary { cursor: pointer; font-weight: 600; padding: 0.15rem 0; }
summary + * { margin-top: 0.5rem; }
dl.pairs {
  display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0.2rem 1.2rem; margin: 0 0 1rem;
  font-size: 0.93rem;
}
dl.pairs dt { color: var(--soft); }
dl.pairs dd { margin: 0; overflow-wrap: anywhere; }
footer {
  margin-top: 3.5rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--soft);
  font-size: 0.87rem;
}
@media (prefers-color-scheme: dark) {
  figure img { filter: brightness(0.93); }
}
@media (min-width: 100rem) { body { grid-template-columns: 18rem minmax(0, 1fr); } }
@media (max-width: 56rem) {
  body { display: block; }
  .contents {
    position: static; height: auto; border-right: 0; border-bottom: 1px solid var(--line);
    padding: 1rem 1.2rem;
  }
  .contents ol { display: flex; flex-wrap: wrap; gap: 0 1rem; }
  main { padding-top: 1.4rem; }
  header h1 { font-size: 1.65rem; }
  .gallery, .answers div { grid-template-columns: minmax(0, 1fr); }
}
@media print {
  :root {
    --page: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb; --accent: #5d0f3c; --accent-soft: #f2f2f2;
    --warn: #6b3a00; --warn-back: #fff; --good: #0f4a31; --good-back: #fff; --stripe: #f6f6f6; --floor: #eee;
    --shadow: none;
  }
  @page { margin: 16mm 14mm; }
  body { display: block; font-size: 10.5pt; }
  .contents, .skip, .look { display: none; }
  details::details-content { content-visibility: visible; display: block; block-size: auto; }
  summary { list-style: none; }
  main { padding: 0; max-width: none; }
  .table, .table.tall { overflow: visible; max-height: none; }
  table { font-size: 8.5pt; }
  th, td { padding: 2pt 4pt; }
  td, td.short { min-width: 0; white-space: normal; }
  thead th { position: static; white-space: normal; }
  tr, figure, .notice, .numbers div { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  section { margin-top: 1.4rem; }
  figure img { max-height: 205mm; width: auto; }
  .gallery { grid-template-columns: 1fr 1fr; }
}
"""

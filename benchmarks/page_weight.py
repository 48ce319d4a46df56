"""Weight of the pages of a report, and how soon they show something.

    python benchmarks/page_weight.py results/demo/report
    python benchmarks/page_weight.py results/demo/report --runs 9 --out weight.tsv

Each page is opened from disk in a new tab of headless Chromium (tests/browser/chromium.py), without a graphics card;
the median over runs is given. First contentful paint and the decoding of the first picture are the browser's own
times; `complete` is when every picture has been decoded.
"""

import argparse
import statistics
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "tests" / "browser"))

TIMES = """
(async () => {
  const painted = () => performance.getEntriesByName("first-contentful-paint")[0];
  while (document.readyState !== "complete" || !painted()) await new Promise(requestAnimationFrame);
  const first = document.images[0];
  if (first) await first.decode();
  const picture = performance.now();
  for (const image of document.images) await image.decode();
  return [painted().startTime, picture, performance.now()];
})()
"""


def weight(path):
    """Return bytes of a page, those of its pictures among them, and how many pictures."""
    markup = path.read_text(encoding="utf-8")
    pictures = [part.split('"')[0] for part in markup.split('"data:image/')[1:]]
    return len(markup.encode()), sum(map(len, pictures)), len(pictures)


def times(path, runs):
    """Return milliseconds to the first paint, the first picture and the last, medians over runs."""
    import chromium

    found = []
    for _ in range(runs):
        with chromium.Page() as page:
            page.call("Page.navigate", url=path.resolve().as_uri())
            page.until("location.protocol === 'file:' && document.getElementById('content') !== null")
            found.append(page.run(TIMES))
    return [statistics.median(column) for column in zip(*found)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="folder of a study's report")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, help="table to write")
    given = parser.parse_args()
    pages = sorted(given.report.glob("*.html"), key=lambda path: (path.name != "index.html", path.name))
    if not pages:
        parser.error(f"no pages in {given.report}")
    columns = ["page", "mb", "pictures_mb", "pictures", "first_paint_ms", "first_picture_ms", "complete_ms"]
    rows = []
    for path in pages:
        whole, pictures, n = weight(path)
        rows.append([path.name, f"{whole / 1e6:.2f}", f"{pictures / 1e6:.2f}", n, *map(round, times(path, given.runs))])
    text = "\n".join("\t".join(map(str, row)) for row in [columns, *rows])
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

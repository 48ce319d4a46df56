"""From a notebook to a page: run it with this interpreter, keep it, and put its output into one HTML file."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from histoweft.report.html import Html, joined
from histoweft.report.style import CSS

_HEADING = re.compile(r'<section id="([^"]+)">\s*<h2>(.*?)</h2>', re.DOTALL)

_START_SECONDS = 180


def _kernel_class(scratch: Path) -> type:
    """Return a kernel manager that starts this very interpreter, whatever kernels the user has installed.

    Parameters
    ----------
    scratch
        Folder for the kernel's sockets and settings, so that nothing of the user's is read or written.
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    library = str(Path(__file__).resolve().parents[2])
    paths = [library, *filter(None, [os.environ.get("PYTHONPATH", "")])]
    environment = {
        "PYTHONPATH": os.pathsep.join(paths),
        "IPYTHONDIR": str(scratch / "ipython"),
        "JUPYTER_CONFIG_DIR": str(scratch / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(scratch),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]

    class ThisInterpreter(AsyncKernelManager):
        def __init__(self, **options: Any):
            super().__init__(**options)
            self.connection_file = str(scratch / "kernel.json")
            if sys.platform != "win32":
                # Pages are made side by side: a socket of one's own cannot collide as a port can.
                self.transport, self.ip = "ipc", str(scratch / "kernel")

        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(argv=command, display_name="Python 3", language="python", env=environment)

    return ThisInterpreter


def execute(notebook: str | os.PathLike, output: str | os.PathLike, parameters: dict[str, Any]) -> None:
    """Run a notebook with papermill and keep it.

    Parameters
    ----------
    notebook
        With a cell tagged ``parameters``.
    output
        Where the executed notebook goes; it runs in the working folder, so relative paths in it stay good.
    parameters
        Values for that cell: nested dicts, lists, texts, numbers, None.

    Raises
    ------
    papermill.PapermillExecutionError
        A cell failed.
    """
    import tempfile

    import nbformat
    import papermill

    with tempfile.TemporaryDirectory(prefix="histoweft-") as scratch:
        done = papermill.execute_notebook(
            str(notebook),
            None,
            parameters=parameters,
            kernel_name="python3",
            progress_bar=False,
            start_timeout=_START_SECONDS,
            kernel_manager_class=_kernel_class(Path(scratch)),
        )
    done.metadata["papermill"] = {"version": papermill.__version__, "input_path": Path(notebook).name}
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(done, str(output))


def body_of(notebook: str | os.PathLike) -> Html:
    """Return the output of an executed notebook as markup, without code and without a page around it."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="basic", exclude_input=True, exclude_output_prompt=True, exclude_anchor_links=True
    )
    with open(notebook, encoding="utf-8") as stream:
        body, _ = exporter.from_file(stream)
    return Html(body)


def page(title: str, body: Html, *, study: str, up: tuple[str, str] | None = None, made: str = "") -> Html:
    """Return a whole page: contents at the left, body, footer, style; nothing that the browser has to fetch.

    Parameters
    ----------
    title
        Of the window.
    body
        Parts made by `histoweft.report.html.section`; their headings form the contents.
    study
        Name of the study.
    up
        Address and text of a link above the contents.
    made
        Text of the footer.
    """
    entries = joined(
        Html('<li><a href="#{}">{}</a></li>\n').format(anchor, Html(re.sub(r"<[^>]+>", "", heading)))
        for anchor, heading in _HEADING.findall(str(body))
    )
    link = Html('<p class="up"><a href="{}">{}</a></p>').format(*up) if up else ""
    # The style sheet has braces of its own, so it is put in by replacement.
    return (
        Html(
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{}</title>\n'
            '<link rel="icon" href="data:,">\n<style></style>\n</head>\n<body>\n'
            '<a class="skip" href="#content">Skip to the content</a>\n'
            '<nav class="contents" aria-label="Contents"><p class="brand">Histoweft<span>{}</span></p>{}'
            "<ol>\n{}</ol></nav>\n"
            '<main id="content">\n{}\n<footer>{}</footer>\n</main>\n</body>\n</html>\n'
        )
        .format(title, study, link, entries, body, made)
        .replace("<style></style>", Html(f"<style>{CSS}</style>"), 1)
    )


def write_page(
    notebook: str | os.PathLike,
    executed: str | os.PathLike,
    output: str | os.PathLike,
    parameters: dict[str, Any],
    *,
    title: str,
    study: str,
    up: Sequence[str] | None = None,
) -> None:
    """Run a notebook and write its page.

    Parameters
    ----------
    notebook, executed, output
        The notebook, the executed copy, the page.
    parameters
        See `execute`.
    title, study, up
        See `page`.
    """
    import datetime

    from histoweft.provenance import versions

    execute(notebook, executed, parameters)
    today = datetime.datetime.now().astimezone().strftime("%d %B %Y, %H:%M")
    tools = ", ".join(f"{name} {version}" for name, version in versions(["snakemake", "papermill"]).items())
    made = f"Made by Histoweft on {today} ({tools}). This file is complete in itself and needs no network."
    markup = page(title, body_of(executed), study=study, up=tuple(up) if up else None, made=made)
    Path(output).write_text(str(markup), encoding="utf-8")

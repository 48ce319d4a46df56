"""What a counted feature is: a gene, or a control, an antibody, a guide; one place for every reader."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

GENE = "Gene Expression"
CONTROL_TYPE = "Control"
# words by which writers call a gene, without case and punctuation
GENE_WORDS = {"geneexpression", "gene", "genes", "mrna", "rna", "endogenous"}
# Names of controls on Xenium, MERSCOPE and other MERFISH, CosMx and GeoMx. No gene symbol may fit: NEGR1 (human),
# neg-1 (worm) and blanks (fly) are genes.
CONTROL = re.compile(
    r"""^(?:neg(?:ative)?[-_. ]?(?:ctrl|control|prb|probe|add|codeword)
      | negative[-_. ]?\d* $
      | blank (?:[-_. ] | \d | $) | blank[-_. ]?codeword
      | system[-_. ]?control | false[-_. ]?code | genomic[-_. ]?control
      | antisense_ | intergenic (?:[-_. ] | region)
      | unassigned (?:[-_. ] | codeword | \d | $)
      | deprecated (?:[-_. ] | codeword | \d | $))""",
    re.I | re.X,
)


def is_control(name: object) -> bool:
    """Return whether a feature is called as the controls of a known platform are."""
    return bool(CONTROL.match(str(name).strip()))


def feature_types(names: Sequence, ids: Sequence | None = None, types: Sequence | None = None) -> np.ndarray:
    """Return each feature's type: ``Gene Expression``, ``Control``, or what the file says of it.

    A stated type holds, save that a "gene" called like a known control is one: programs that write a matrix again
    call everything a gene.

    Parameters
    ----------
    names, ids
        Names, and identifiers where there are any; either may show a control.
    types
        What the file states; None or empty values where it says nothing.
    """
    import numpy as np

    ids = names if ids is None else ids
    stated = [""] * len(names) if types is None else [_stated(kind) for kind in types]
    found = [
        CONTROL_TYPE if kind in ("", GENE) and (is_control(name) or is_control(other)) else kind or GENE
        for name, other, kind in zip(names, ids, stated)
    ]
    return np.array(found, dtype=object)


def _stated(kind: object) -> str:
    """Return a stated type, with every word for a gene as ``Gene Expression`` and no statement as an empty text."""
    text = "" if kind is None else str(kind).strip()
    if text.casefold() in ("", "nan", "none", "na", "<na>"):
        return ""
    return GENE if re.sub(r"\W|_", "", text.casefold()) in GENE_WORDS else text

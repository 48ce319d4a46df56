"""The study's config: defaults from the schema, every fault at once, and its documentation."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from histoweft.errors import Faults, nearest
from histoweft.paths import INVISIBLE, plain

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"

LONGEST = 200
"""Characters of a value that a message repeats."""

PROSE = (("title",), ("report", "author"))
"""Options that are printed as they are: any character may be meant."""
CURLY = re.compile("^[\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb].*[\u201c\u201d\u2018\u2019\u00ab\u00bb]$", re.S)
"""A text in the quotation marks of a word processor."""


@cache
def load_schema(name: str) -> dict:
    """Return one of the schemas, ``config`` or ``samples``; shared between callers, so not to be changed."""
    import yaml

    return yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text(encoding="utf-8"))


def complete(config: Any, schema: dict) -> Any:
    """Return a copy of `config` with the schema's defaults filled in at every depth.

    The words ``true`` and ``false`` become what they mean where a switch is wanted: ``--config`` hands over text.
    """
    if schema.get("type") == "boolean" and config in ("true", "false"):
        return config == "true"
    if not isinstance(config, dict):
        return copy.deepcopy(config)
    done = {key: copy.deepcopy(value) for key, value in config.items()}
    for key, part in schema.get("properties", {}).items():
        if key in done:
            done[key] = complete(done[key], part)
        elif "default" in part:
            done[key] = complete(part["default"], part)
    return done


def check(
    config: dict, schema: dict, source: str = "config", names: Callable[[tuple], Collection[str]] = lambda place: ()
) -> Faults:
    """Collect every fault of a config.

    Parameters
    ----------
    config
        The completed config.
    schema
        JSON Schema 2020-12.
    source
        How to call the config in messages.
    names
        Place of an option -> the names of the sample sheet that it may speak of.
    """
    import jsonschema

    faults = Faults()
    validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _whole_pattern})
    errors = validator(schema).iter_errors(config)
    for error in sorted(errors, key=lambda error: [str(part) for part in error.absolute_path]):
        _translate(error, source, faults, names)
    for place, text in _texts(config):
        if place not in PROSE:
            _check_copied(f"{source}: {option_name(place)}", text, faults)
        if "\0" in text or (not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text)):
            hint = "Write it again by hand: such characters come with copying."
            faults.add(f"{source}: {option_name(place)}", ascii(text), "text without control codes", hint)
    return faults


def _check_copied(where: str, text: str, faults: Faults) -> None:
    """Note what copying from a document leaves in a text: curly quotes around it, characters that nobody sees."""
    if CURLY.match(text):
        faults.add(where, repr(text), "straight quotes (\" or ') or none", "Curly ones belong to the text for YAML.")
    elif len(text.translate(INVISIBLE)) < len(text):
        faults.add(where, ascii(text), "text without invisible characters", "Write it again by hand.")


def meanings(text: str) -> Iterator[Any]:
    """Go through what a name may become on its way through a config file or the command line."""
    import yaml

    for read in (yaml.safe_load, int, float):
        try:
            yield read(text)
        except (ValueError, yaml.YAMLError):
            continue


def writings(value: Any, names: Collection[str]) -> list[str]:
    """Return the names that a value without quotes can have been: 001 for 1, 010 for 8, yes for true."""
    return [name for name in names if any(type(one) is type(value) and one == value for one in meanings(name))]


def _texts(value: Any, place: tuple = ()) -> Iterator[tuple[tuple, str]]:
    """Go through every text of nested groups and lists, each with its place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(part, (*place, key))


def _whole_pattern(validator: Any, pattern: str, instance: Any, schema: dict) -> Iterator[Any]:
    """Check a pattern to the very end of a text: Python's ``$`` would let a line break follow."""
    import jsonschema

    if isinstance(instance, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


def _written(value: Any) -> str:
    """Return a value as a person may have written it; YAML has kinds that JSON lacks, such as dates."""
    try:
        text = json.dumps(value, default=str)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def option_name(path: Any) -> str:
    """Return ``expression.qc.min_genes`` or ``integration.methods[1]`` for a path of keys and indices."""
    name = ""
    for part in path:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    return name


def _translate(error: Any, source: str, faults: Faults, names: Callable[[tuple], Collection[str]]) -> None:
    option = option_name(error.absolute_path)
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        for key in error.instance:
            if key not in known:
                name = option_name([*error.absolute_path, key])
                hint = nearest(key, known) or f"Options here: {', '.join(known)}."
                if plain(str(key)).strip() in known:
                    hint = f"{key!a} has a blank or an invisible character that does not belong there."
                faults.add(f"{source}: {name}", "an unknown option", "one that config/README.md lists", hint)
    elif error.validator == "required":
        for key in error.validator_value:
            if key not in error.instance:
                faults.add(
                    f"{source}: {option_name([*error.absolute_path, key])}",
                    "nothing",
                    "a value; this option has no default",
                )
    else:
        expected, hint = _expected(error)
        if error.validator == "type" and expected == "a list" and isinstance(error.instance, str | int | float):
            hint = _bracket_it(error.instance, names(tuple(error.absolute_path)))
        if error.validator == "type" and expected == "text":
            hint = _quote_it(error.instance, names(tuple(error.absolute_path)))
        faults.add(f"{source}: {option}", _written(error.instance), expected, hint)


def _bracket_it(value: Any, names: Collection[str]) -> str:
    """Return how to write a list of one name."""
    likely = [value] if isinstance(value, str) else writings(value, names)
    return f"Write a list: [{likely[0]!r}]." if len(likely) == 1 else "Put it in square brackets."


def _quote_it(value: Any, names: Collection[str]) -> str:
    """Return how to write a name that YAML has made a number, a truth value or a date of."""
    if value is None or isinstance(value, list | dict):
        return ""
    likely = writings(value, names)
    if likely:
        return f"Put it in quotes: {' or '.join(map(repr, likely[:4]))}. Without them it is {_kind(value)} to YAML."
    example = {"true or false": "'yes'", "a date": "'2026-01-31'"}.get(_kind(value), "'001'")
    return f"Put it in quotes, as in {example}: what you wrote is {_kind(value)} to YAML."


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "a number" if isinstance(value, int | float) else "a date"


def _expected(error: Any) -> tuple[str, str]:
    """Return what a failed keyword would accept, and a hint."""
    want, value = error.validator_value, error.instance
    if error.validator == "enum":
        return f"one of {', '.join(map(str, want))}", nearest(str(value), want)
    if error.validator == "type":
        types = [want] if isinstance(want, str) else want
        words = {
            "integer": "a whole number",
            "number": "a number",
            "string": "text",
            "boolean": "true or false",
            "null": "null",
            "array": "a list",
            "object": "a group of options",
        }
        hint = "Take the quotes away." if isinstance(value, str) and {"number", "integer"} & set(types) else ""
        return " or ".join(words[t] for t in types), hint
    bounds = {
        "minimum": "{} or more",
        "maximum": "{} or less",
        "exclusiveMinimum": "more than {}",
        "exclusiveMaximum": "less than {}",
        "minItems": "at least {} entries",
        "maxLength": "at most {} characters",
    }
    if error.validator in bounds:
        return bounds[error.validator].format(want), ""
    if error.validator == "contains":
        return f"a list with {json.dumps(want.get('const', want))} in it", ""
    if error.validator == "uniqueItems":
        return "a list without repeats", ""
    if error.validator == "pattern":
        return "letters, digits, '_', '.' or '-', not starting with a sign", ""
    return error.message, ""


def markdown(config_schema: dict, samples_schema: dict) -> str:
    """Return config/README.md: every option and sheet column with type, default and meaning."""
    lines = [
        "# Configuration",
        "",
        "Made from `workflow/schemas/` by `./histoweft docs`; edit the schemas, not this page.",
        "",
        "A study is a folder with a `config.yaml` and a sample sheet; run it with",
        "`./histoweft --configfile config/studies/<study>/config.yaml`. Options that are not given take the default.",
        "",
        "## Options",
        "",
        "| option | type | default | meaning |",
        "|---|---|---|---|",
        *_option_rows(config_schema, ""),
        "",
        "## Sample sheet",
        "",
        " ".join(samples_schema["description"].split()),
        "",
        "| column | type | default | meaning |",
        "|---|---|---|---|",
        *_option_rows(samples_schema, ""),
        "",
    ]
    return "\n".join(lines)


def _option_rows(schema: dict, prefix: str) -> list[str]:
    rows = []
    for key, part in schema["properties"].items():
        meaning = " ".join(part.get("description", "").split()).replace("|", "\\|")
        if "properties" in part:
            rows.append(f"| **`{prefix}{key}`** | | | *{meaning}* |")
            rows += _option_rows(part, f"{prefix}{key}.")
            continue
        default = "required" if key in schema.get("required", []) else f"`{json.dumps(part.get('default'))}`"
        rows.append(f"| `{prefix}{key}` | {_type_words(part)} | {default} | {meaning} |")
    return rows


def _type_words(part: dict) -> str:
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    types = part.get("type", "")
    words = types if isinstance(types, str) else " or ".join(types)
    if words == "array":
        items = part["items"]
        words = "list of " + (", ".join(f"`{v}`" for v in items["enum"]) if "enum" in items else items["type"])
    limits = [
        f"{sign} {part[key]}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"))
        if key in part
    ]
    return " ".join([words, *limits])

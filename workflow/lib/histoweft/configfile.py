"""A config file as it is written: what Snakemake cannot read said in words, and names as they stand in the file.

YAML makes 1 of 001, 8 of 010, true of yes and 750 of 12:30. Where an option takes text, what was written is meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from histoweft import plaintext
from histoweft.errors import Faults, nearest
from histoweft.paths import resolve

SUFFIXES = (".yaml", ".yml", ".json")
BLANKS = re.compile(r"[ \t]*[\u00a0\u2000-\u200a\u202f\u205f\u3000]")
"""Blanks at the start of a line that are none to YAML."""
GLUED = re.compile(r" *\w+:[^\s/:]")
"""An option without the space after its colon."""
EXPECTED = "options, one a line: name: value"


@dataclass
class Written:
    """What stands in the config files, place by place; a place is a tuple of keys and numbers in lists.

    Attributes
    ----------
    values
        Place -> the value as YAML understands it, and the text that stands there. Values without quotes alone.
    quoted
        Places of texts; those in quotes and those that YAML takes for text anyway.
    keys
        Place -> its last key as it is written, where YAML understands another kind than text.
    """

    values: dict[tuple, tuple[Any, str]] = field(default_factory=dict)
    quoted: set[tuple] = field(default_factory=set)
    keys: dict[tuple, str] = field(default_factory=dict)

    def text(self, place: tuple, value: Any) -> str | None:
        """Return what was written for a value, or None where it came from elsewhere."""
        meant, text = self.values.get(place, (None, None))
        return text if type(meant) is type(value) and repr(meant) == repr(value) else None

    def forget(self, place: tuple) -> None:
        """Forget a place that a later file writes anew."""
        self.values.pop(place, None)
        self.quoted.discard(place)


def check(path: Path, source: str = "") -> Faults:
    """Return why Snakemake cannot read a config file; nothing wrong inside of it is looked for."""
    faults = Faults()
    read = _node(path, source or str(path), faults, strict=True)
    if read is not None:
        _construct(*read, source or str(path), faults)
        for key, _ in read[1].value:
            if BLANKS.match(str(key.value)):
                where = f"{source or path}, line {key.start_mark.line + 1}"
                faults.add(where, repr(key.value), EXPECTED, _yaml_hint(key.value, ""))
    return faults


def as_written(paths: Iterable[Path]) -> tuple[Written, Faults]:
    """Read config files, later ones over earlier ones as Snakemake does.

    Returns
    -------
    written
        What stands in them.
    faults
        Options that stand there twice; YAML takes the last one without a word.
    """
    written, faults = Written(), Faults()
    for path in paths:
        read = _node(Path(path), str(path), Faults(), strict=False)
        if read is None:
            continue
        loader, node = read
        if any(key.value == "__use_yte__" for key, _ in node.value):
            continue  # a template: what stands there is no value yet
        if not _holds_itself(node):
            _check_repeats(node, (), str(path), faults)
        if _construct(loader, node, str(path), Faults()):
            _collect(loader, node, (), written)
    return written, faults


def _construct(loader: Any, node: Any, source: str, faults: Faults) -> bool:
    """Fill in what anchors and ``<<`` stand for; return whether every value can be understood, or note which cannot."""
    import yaml

    if _holds_itself(node):
        faults.add(source, "a value that holds itself (& and *)", EXPECTED, "Write the value out.")
        return False
    try:
        loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = source if mark is None else f"{source}, line {mark.line + 1}"
        faults.add(where, "a value that YAML cannot understand", EXPECTED, "Put it into quotes.")
    except ValueError:  # a date that is none, such as 2026-02-30
        for bad in _no_values(loader, node):
            what = f"{bad.value!r}, which YAML takes for a date or a number that there is not"
            faults.add(f"{source}, line {bad.start_mark.line + 1}", what, "a value", "Put it into quotes.")
    else:
        return True
    return False


def _holds_itself(node: Any, above: tuple = ()) -> bool:
    """Return whether an alias stands inside of what it stands for."""
    if isinstance(node.value, str):
        return False
    if id(node) in above:
        return True
    parts = [part for one in node.value for part in (one if isinstance(one, tuple) else (one,))]
    return any(_holds_itself(part, (*above, id(node))) for part in parts)


def _no_values(loader: Any, node: Any) -> Iterator[Any]:
    """Go through the texts of a tree that YAML cannot turn into what it takes them for."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            for part in pair:
                yield from _no_values(loader, part)
    elif isinstance(node, yaml.SequenceNode):
        for part in node.value:
            yield from _no_values(loader, part)
    else:
        try:
            type(loader)("").construct_object(yaml.ScalarNode(node.tag, node.value))
        except ValueError:
            yield node


def _node(path: Path, source: str, faults: Faults, strict: bool) -> tuple[Any, Any] | None:
    """Return the loader of a config file and its tree of options, or note why there is none."""
    import yaml

    text = _text(path, source, faults, strict)
    if text is None:
        return None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        found = f"the control character {chr(error.character)!a}" if isinstance(error.character, int) else "odd bytes"
        faults.add(f"{source}, line {line}", found, "text", "Write the line again by hand: it came with copying.")
        return None
    except yaml.YAMLError as error:
        _say_no_yaml(error, text, source, faults)
        return None
    if node is None:
        faults.add(source, "an empty file", EXPECTED, "A study needs at least: study, samples.")
    elif not isinstance(node, yaml.MappingNode):
        kind = "a list" if isinstance(node, yaml.SequenceNode) else f"the text {node.value[:60]!r}"
        hint = "Put a space after the colon." if re.match(r"\w+:\S", str(node.value)) else ""
        hint = "Write colons instead of equals signs." if re.match(r"\w+\s*=", str(node.value)) else hint
        hint = hint or "Take the dashes before the options away." * isinstance(node, yaml.SequenceNode)
        faults.add(source, kind, EXPECTED, hint)
    else:
        return loader, node
    return None


def _text(path: Path, source: str, faults: Faults, strict: bool) -> str | None:
    """Return the text of a config file, or note why it cannot be read."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, names) or (f"It is looked for in {Path.cwd()}." if not path.is_absolute() else "")
        faults.add("--configfile", f"{path}, which does not exist", "the path of a config file", hint)
        return None
    except IsADirectoryError:
        inside = sorted(p.name for p in path.iterdir() if p.suffix in SUFFIXES)
        faults.add("--configfile", f"{path}, a folder", "a config file", f"It holds {', '.join(inside) or 'none'}.")
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no name that a file can have"
        faults.add("--configfile", f"{path} ({reason})", "a config file that can be read")
        return None
    text = plaintext.decode(data, source, faults)
    encoding = plaintext.encoding_of(data)
    if strict and text is not None and not encoding.startswith("utf-8"):
        faults.add(source, f"text in {encoding.upper()}", "text in UTF-8", "Save it as UTF-8.")
        return None
    return text


def _say_no_yaml(error: Any, text: str, source: str, faults: Faults) -> None:
    """Say where the file stops being YAML, and why where that is plain to see."""
    mark = getattr(error, "problem_mark", None)
    lines = text.splitlines()
    number = min(mark.line, len(lines) - 1) if mark is not None and lines else 0
    line = lines[number] if lines else ""
    for n, one in enumerate(lines[: number + 1]):
        if re.match(r" *\t+ *\S", one) or BLANKS.match(one) or (n == number - 1 and GLUED.match(one)):
            number, line = n, one
            break
    faults.add(f"{source}, line {number + 1}", repr(line.strip()[:80]), EXPECTED, _yaml_hint(line, str(error)))


def _yaml_hint(line: str, problem: str) -> str:
    """Return what to do about a line that is no YAML, where its cause is in sight."""
    if re.match(r" *\t", line):
        return "It begins with a tab: use spaces to indent."
    if BLANKS.match(line):
        return "It begins with a no-break space or another special blank: write plain spaces."
    value = line.partition(": ")[2].strip()
    if "\\" in value and value.startswith('"'):
        return "Write backslashes in single quotes, or a path with forward slashes."
    if value[:1] in ("@", "`", "%", "*", "&", "!", "{", "["):
        return f"Put a value that begins with {value[0]!r} into quotes, or close its bracket."
    if re.search(r":(\s|$)", value) and value[:1] not in "\"'":
        return "Put a value that has a colon in it into quotes."
    if line.count('"') % 2 or line.count("'") % 2:
        return "A quotation mark is not closed."
    if re.match(r"\s*[\w.]+\s*=", line):
        return "Write a colon and a space instead of the equals sign."
    if re.match(r"\s*[\w.]+:\S", line):
        return "Put a space after the colon."
    return "Look at the indentation of this line and the one before: options of a group stand equally far in."


def _check_repeats(node: Any, place: tuple, source: str, faults: Faults) -> None:
    """Note every option that stands twice in its group."""
    import yaml

    if isinstance(node, yaml.SequenceNode):
        for number, part in enumerate(node.value):
            _check_repeats(part, (*place, f"[{number}]"), source, faults)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, part in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in seen and name != "<<":
            option = ".".join(map(str, (*place, name))).replace(".[", "[")
            first = f"it stands in line {seen[name]} already"
            faults.add(f"{source}, line {line}", f"{option} once more ({first})", "each option once", "Join the two.")
        seen.setdefault(name, line)
        _check_repeats(part, (*place, name), source, faults)


def _collect(loader: Any, node: Any, place: tuple, written: Written) -> None:
    """Go through a tree of options and note every value with the text it was written as."""
    import yaml

    written.forget(place)
    if isinstance(node, yaml.MappingNode):
        for key, part in node.value:
            name = loader.construct_object(key) if isinstance(key, yaml.ScalarNode) else None
            if name is None and not isinstance(key, yaml.ScalarNode):
                continue
            if not isinstance(name, str):
                written.keys[(*place, name)] = key.value
            _collect(loader, part, (*place, name), written)
    elif isinstance(node, yaml.SequenceNode):
        for number, part in enumerate(node.value):
            _collect(loader, part, (*place, number), written)
    else:
        value = loader.construct_object(node)
        if isinstance(value, str):
            written.quoted.add(place)
        else:
            written.values[place] = (value, node.value)


def top_level(path: Path) -> dict[str, str]:
    """Return the options of a config file that stand in no group, as they are written."""
    import yaml

    read = _node(path, "", Faults(), strict=False)
    pairs = read[1].value if read else []
    return {key.value: value.value for key, value in pairs if isinstance(value, yaml.ScalarNode)}


def located(paths: Iterable[str]) -> list[str]:
    """Return config files under the names that they have on disk."""
    return [str(resolve(path)) for path in paths]


def restored(value: Any, part: dict, written: Written, place: tuple = ()) -> Any:
    """Return a config with the text that was written wherever an option takes text and YAML made something else of it.

    Parameters
    ----------
    value
        The config, or a part of it.
    part
        Its schema.
    written
        What stands in the config files.
    place
        Where `value` is in the config.
    """
    if isinstance(value, dict):
        return dict(_restored_options(value, part, written, place))
    if isinstance(value, list):
        inner = part.get("items", {})
        return [restored(one, inner, written, (*place, n)) for n, one in enumerate(value)]
    kinds = part.get("type", ())
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    if isinstance(value, str):
        return _from_command_line(value, kinds, written, place)
    text = written.text(place, value)
    if text is None or is_kind(value, kinds):
        return value
    if value is None:
        return part.get("default") if text == "" and "default" in part else value
    return text if "string" in kinds else value


def _restored_options(value: dict, part: dict, written: Written, place: tuple) -> Iterator[tuple[Any, Any]]:
    known = part.get("properties", {})
    others = part.get("additionalProperties")
    for key, one in value.items():
        inner = known.get(key, others if isinstance(others, dict) else {})
        name = key
        if not isinstance(key, str) and isinstance(others, dict):
            name = written.keys.get((*place, key), key)
        yield name, restored(one, inner, written, (*place, key))


def is_kind(value: Any, kinds: Iterable[str]) -> bool:
    """Return whether a value is of one of JSON Schema's types."""
    truth = isinstance(value, bool)
    tests = {
        "string": isinstance(value, str),
        "boolean": truth,
        "null": value is None,
        "integer": isinstance(value, int) and not truth,
        "number": isinstance(value, int | float) and not truth,
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
    }
    return any(tests[kind] for kind in kinds)


def _from_command_line(value: str, kinds: Iterable[str], written: Written, place: tuple) -> Any:
    """Return the number that a text means inside ``--config group='{option: 5}'``, where everything comes as text."""
    import yaml

    if "string" in kinds or place in written.quoted or not kinds:
        return value
    try:
        meant = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):
        return value
    return meant if is_kind(meant, kinds) and not isinstance(meant, list | dict) else value

"""What a user typed after ``./histoweft``: put in the order that Snakemake understands, or said what is wrong with it.

Snakemake's ``--configfile`` and ``--config`` take every word that follows, a target among them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from histoweft import config as options
from histoweft import configfile
from histoweft.errors import Faults, nearest
from histoweft.paths import resolve

COMMANDS = (
    "demo", "preflight", "split", "register", "benchmark", "test", "lint", "docs", "lock", "install", "help",
)  # fmt: skip
FOLDERS = ("results", "logs", "benchmarks", "resources")
"""Where targets lie."""
CONFIGFILES = ("--configfile", "--configfiles")
CONFIG = ("--config", "-C")
SETTINGS = ("--resources", "--res", "--set-threads", "--set-resources", "--default-resources", "--default-res")
"""Snakemake's options that take several ``name=value``."""
WITH_VALUE = (
    "--snakefile", "-s", "--cores", "-c", "--jobs", "-j", "--profile", "--workflow-profile", "--directory", "-d",
    "--executor", "-e", "--retries", "--latency-wait", "--conda-prefix", "--max-threads", "--local-cores",
)  # fmt: skip
SWITCHES = (
    "-n", "--dry-run", "--dryrun", "-k", "--keep-going", "-F", "--forceall", "-f", "--force", "-p", "--printshellcmds",
    "--unlock", "--touch", "-t", "--use-conda", "--rerun-incomplete", "--verbose", "--nolock", "--keep-incomplete",
    "--notemp", "--show-failed-logs", "--nocolor", "--summary", "--list", "-l", "--version", "-h", "--help",
)  # fmt: skip
QUIET = ("-q", "--quiet")
QUIET_ABOUT = ("all", "progress", "rules", "host", "reason")
SHORT = re.compile(r"-[cj](\d+|all)|-[nkFfptq]{2,}|--[\w-]+=.*")
"""Short options with their value, or several in one word; an option with its value."""
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
WHERE = "command line"


@dataclass
class Line:
    """A command line, taken apart.

    Attributes
    ----------
    words
        Options for Snakemake, in their order.
    targets
        Rules and files to make.
    configfiles, config
        Config files, and ``option=value`` that go over them.
    """

    words: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    configfiles: list[str] = field(default_factory=list)
    config: list[str] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)

    def arguments(self) -> list[str]:
        """Return the arguments for Snakemake, every target behind ``--``."""
        found = list(self.words)
        if self.configfiles:
            found += ["--configfile", *self.configfiles]
        if self.config:
            found += ["--config", *self.config]
        return [*found, "--", *self.targets] if self.targets else found


def rule_names(repository: Path) -> list[str]:
    """Return the names of the workflow's rules."""
    files = [repository / "Snakefile", *sorted((repository / "workflow" / "rules").glob("*.smk"))]
    texts = [path.read_text(encoding="utf-8") for path in files if path.is_file()]
    return [name for text in texts for name in re.findall(r"^\s*(?:rule|checkpoint) (\w+):", text, re.M)]


def read(arguments: list[str], rules: list[str], snakemake_options: Callable[[], list[str]]) -> Line:
    """Take a command line apart and check what Snakemake would not explain.

    Parameters
    ----------
    arguments
        As typed.
    rules
        Names of the workflow's rules.
    snakemake_options
        Returns every option of Snakemake; asked only where an option is not among the usual ones.
    """
    line = Line()
    given_files = _take_apart(arguments, rules, line)
    _check_options(line.words, snakemake_options, line.faults)
    for target in line.targets:
        _check_target(target, rules, line.faults)
    if given_files and not line.configfiles:
        line.faults.add(WHERE, "--configfile without a file", "a config file after it")
    line.configfiles = configfile.located(line.configfiles)
    for path in line.configfiles:
        line.faults.extend(configfile.check(Path(path)))
    if not line.faults:
        _check_study(line)
    return line


def _take_apart(arguments: list[str], rules: list[str], line: Line) -> bool:
    """Sort words into options, settings and targets; return whether ``--configfile`` was there."""
    words, free, given_files = [_from_here(word) for word in arguments], True, False
    while words:
        word = words.pop(0)
        if word == "--":
            line.targets += words
            break
        name, equals, value = word.partition("=")
        if name in (*CONFIGFILES, *CONFIG, *SETTINGS):
            given_files |= name in CONFIGFILES
            values = [value] if equals else []
            while words and words[0][:1] not in ("-", *DASHES):
                values.append(words.pop(0))
            _settle(name, values, rules, line)
        elif word[:1] not in ("-", *DASHES) and free:
            line.targets.append(word)
        else:
            line.words.append(word)
            while words and (_takes(word, words[0]) or word[:1] in (*DASHES,)) and words[0][:1] != "-":
                line.words.append(words.pop(0))
                if word in WITH_VALUE:
                    break
            # What follows an option that is not among the usual ones may be its values.
            free = word in (*WITH_VALUE, *SWITCHES, *QUIET) or bool(SHORT.fullmatch(word))
    return given_files


def _takes(option: str, word: str) -> bool:
    """Return whether one of the usual options takes the next word."""
    return option in WITH_VALUE or (option in QUIET and word in QUIET_ABOUT)


def _settle(name: str, values: list[str], rules: list[str], line: Line) -> None:
    """Take the values of an option that takes several, and leave it what are targets."""
    if name in CONFIGFILES:
        first = [] if line.configfiles else values[:1]
        taken = [value for value in values if not _is_target(value, rules) and (value in first or _is_path(value))]
        line.configfiles += taken
    else:
        taken = [value for value in values if re.match(r"[^/=]+=", value) or not _is_target(value, rules)]
        bad = [value for value in taken if not re.match(r"[A-Za-z_][\w-]*\w=" if name in CONFIG else r".+=", value)]
        if bad:
            _say_no_setting(name, bad, line.faults)
        if name in CONFIG:
            line.config += taken
        elif taken:
            line.words += [name, *taken]
    line.targets += [value for value in values if value not in taken]


def _from_here(word: str) -> str:
    """Return a file of the results as the workflow calls it, where its whole path was typed."""
    path = Path(word)
    if not path.is_absolute() or not path.is_relative_to(Path.cwd()):
        return word
    inner = path.relative_to(Path.cwd())
    return str(inner) if inner.parts[:1] and inner.parts[0] in FOLDERS else word


def _is_path(value: str) -> bool:
    """Return whether a word is that of a file: others after a config file are targets, though misspelled ones."""
    return "/" in value or "." in value or Path(value).exists()


def _is_target(value: str, rules: list[str]) -> bool:
    """Return whether a word after ``--configfile`` or ``--config`` is a rule, or a file that the workflow makes."""
    if value in rules:
        return not Path(value).exists()
    parts = Path(value.removeprefix("./")).parts
    config = value.lower().endswith(configfile.SUFFIXES) and Path(value).is_file()
    return len(parts) > 1 and parts[0] in FOLDERS and "=" not in parts[0] and not config


def _say_no_setting(name: str, words: list[str], faults: Faults) -> None:
    """Say why words after ``--config`` set nothing."""
    hint = "Write no blanks around '=', and put a value with blanks into quotes."
    key, equals, value = words[0].partition("=")
    if name in CONFIG and "." in key and equals:
        first, *rest = key.split(".")
        for part in reversed(rest):
            value = f"{{{part}: {value}}}"
        hint = f"Write --config {first}='{value}'."
    faults.add(f"{WHERE}, {name}", ", ".join(map(repr, words)), "option=value", hint)


def _check_options(words: list[str], snakemake_options: Callable[[], list[str]], faults: Faults) -> None:
    """Say which options there are not."""
    usual = {*CONFIGFILES, *CONFIG, *SETTINGS, *WITH_VALUE, *SWITCHES, *QUIET}
    for word in words:
        name = word.partition("=")[0]
        if word[:1] and word[0] in DASHES:
            bare = name.strip(DASHES + "-")
            faults.add(WHERE, repr(word), "plain hyphens", f"Write {'--' if len(bare) > 1 else '-'}{bare}.")
        elif name[:2] == "--" and name not in usual:
            every = snakemake_options()
            if not any(one.startswith(name) for one in every):
                faults.add(WHERE, name, "an option that there is", _why_no_option(name, every))
        elif len(name) > 3 and f"-{name}" in usual:
            faults.add(WHERE, name, f"-{name}", "Long options begin with two hyphens.")


def _why_no_option(name: str, every: list[str]) -> str:
    bare = name.strip("-").replace("-", "_")
    if bare in options.load_schema("config")["properties"]:
        return f"{bare} is an option of the config: write --config {bare}=..., or put it into the config file."
    return nearest(name, every)


def _check_target(target: str, rules: list[str], faults: Faults) -> None:
    """Say of a word that is neither command nor rule nor file of the results what may have been meant."""
    if target.lower().endswith(configfile.SUFFIXES) and resolve(target).is_file() and not _is_target(target, rules):
        faults.add(WHERE, target, "an option before a config file", f"Write --configfile {target}.")
    elif "/" not in target and target not in rules and "." not in target:
        expected = (
            f"a command ({', '.join(COMMANDS)}), an option such as --configfile, a rule, or a file below results/"
        )
        hint = nearest(target, [*COMMANDS, *rules])
        if target in COMMANDS:
            hint = f"A command stands first: ./histoweft {target}"
        faults.add(WHERE, repr(target), expected, hint)


def _check_study(line: Line) -> None:
    """Check that the config files name a study, and that the targets are files of it."""
    name = next((word.partition("=")[2] for word in reversed(line.config) if word.startswith("study=")), None)
    if name is None:
        name = next(_studies(line.configfiles), None)
    if name is None and line.configfiles:
        listed = ", ".join(line.configfiles)
        line.faults.add(f"{listed}: study", "nothing", "a value; this option has no default", "Name the study there.")
    for target in line.targets if name else ():
        parts = Path(target).parts
        if len(parts) > 2 and parts[0] in ("results", "logs", "benchmarks") and parts[1] != name:
            hint = f"Is it {'/'.join([parts[0], name, *parts[2:]])}?"
            line.faults.add(WHERE, target, f"a file of the study {name!r}, which the config names", hint)


def _studies(paths: list[str]) -> Iterator[str]:
    """Go through the names of the study that config files give, as they are written, the last one first."""
    for path in reversed(paths):
        name = configfile.top_level(Path(path)).get("study")
        if name:
            yield name

"""One clear sentence out of the parser's long ones: which key is wrong and what would be right."""

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

_MANY = 12
# Of more classes than these none is named, and of fewer the first ones: a sentence must stay one.
_CLASSES, _SHOWN = 24, 7


def one_sentence(message: str, known_keys: Iterable[str] = ()) -> str:
    """Condenses an error of jsonargparse, which lists every alternative that it has tried; others stay as they are.

    Args:
        message: the error's text.
        known_keys: the keys that the parser accepts, for suggestions.
    """
    keys = re.findall(r'Parser key "([^"]+)"', message)
    subject = ".".join(keys)
    for pattern, explain in _CAUSES:
        if found := re.search(pattern, message, re.DOTALL):
            cause = explain(found, message, list(known_keys))
            return f"{subject}: {cause}" if subject else cause
    text = " ".join(message.split())
    return text if len(text) <= 400 else f"{text[:400]} ..."


def _no_attribute(found: re.Match[str], message: str, known: list[str]) -> str:
    module, name = found.groups()
    near = _nearest(name, [other for other, _ in _classes_in(module)])
    return f"{module} has no {name}" + (f"; did you mean {module}.{near}?" if near else ".")


def _no_module(found: re.Match[str], message: str, known: list[str]) -> str:
    return f"{_class_path(message) or 'the class'} cannot be imported, as there is no module {found[1]}."


def _wrong_base(found: re.Match[str], message: str, known: list[str]) -> str:
    given = re.search(r"Given value: (?:\{'class_path': ')?([\w.]+)", message)
    groups = found.groupdict()
    path = (groups["path"] or (given[1] if given else "the class")).strip()
    base = groups["base"].rpartition(".")[2]
    candidates = _implementations(base)
    right = f"use one, such as {', '.join(candidates)}" if candidates else "only a class made from that one fits here"
    return f"{path} is not {_a(base)}; {right}."


def _unknown_argument(found: re.Match[str], message: str, known: list[str]) -> str:
    option, path = found[1], _class_path(message)
    accepted = _arguments_of(path) if path else []
    near = _nearest(option, accepted)
    hint = f"; did you mean {near}?" if near else f"; it takes {', '.join(accepted)}." if accepted else "."
    return f"{path or 'this class'} has no argument {option}{hint}"


def _unknown_key(found: re.Match[str], message: str, known: list[str]) -> str:
    key = found[1].lstrip("-").partition("=")[0]
    parent, _, name = key.rpartition(".")
    depth = key.count(".")
    inside = [other.split(".") for other in known if not parent or other.startswith(f"{parent}.")]
    siblings = list(dict.fromkeys(parts[depth] for parts in inside))
    near = _nearest(name, siblings)
    if near:
        hint = f"; did you mean {parent}.{near}?" if parent else f"; did you mean {near}?"
    elif 0 < len(siblings) <= _MANY:
        hint = f"; {parent or 'a configuration'} has {', '.join(siblings)}."
    else:
        hint = "; memnet COMMAND --help lists them."
    return f"there is no key {key}{hint}"


def _required(found: re.Match[str], message: str, known: list[str]) -> str:
    names = re.sub(r"\b(fit|validate|test|predict)\.", "", found[1].strip())
    path = _class_path(message)
    if path:
        return f"{path} needs {names}."
    return f"nothing says what {names} shall be; give --config FILE, such as configs/ntm_copy.yaml."


def _no_class_path(found: re.Match[str], message: str, known: list[str]) -> str:
    candidates = _implementations(found[1])
    return f"it needs a class_path that names {_a(found[1])}" + (
        f", such as {', '.join(candidates)}." if candidates else "."
    )


def _wrong_type(found: re.Match[str], message: str, known: list[str]) -> str:
    wanted = [name for name in re.findall(r"Expected an? <class '([\w.]+)'>", message) if name != "NoneType"]
    value = re.search(r"(?:Got value|Given value): ([^\n]+?)(?:\. Got value|\n|$)", message)
    shown = value[1].strip().rstrip(".") if value else "the value"
    return f"{shown} is not of type {' or '.join(dict.fromkeys(wanted)) or 'expected here'}."


def _bad_yaml(found: re.Match[str], message: str, known: list[str]) -> str:
    places = re.findall(r"line (\d+), column (\d+)", message)
    reason = re.sub(r'\s*in "<[^>]*>", line \d+, column \d+:?', ";", found[1])
    where = f" at line {places[-1][0]}, column {places[-1][1]}" if places else ""
    return f"the configuration is not valid YAML{where}: {' '.join(reason.split()).strip('; ')}."


# What was tried last stands deepest, so the first pattern that fits names the cause and not its consequences.
_CAUSES: list[tuple[str, Callable[[re.Match[str], str, list[str]], str]]] = [
    (r"module '([\w.]+)' has no attribute '(\w+)'", _no_attribute),
    (r"No module named '([\w.]+)'", _no_module),
    (r"Import path (?P<path>[\w.]+ )?does not correspond to a subclass of (?P<base>\w+)", _wrong_base),
    (r"Expected '(?P<path>[\w.]+)' to be a subclass of <class '(?P<base>[\w.]+)'>", _wrong_base),
    (r"Option '([\w.]+)' is not accepted", _unknown_argument),
    (r"Subcommand '\w+' does not accept option '([\w.]+)'", _unknown_key),
    (r"unrecognized arguments: (\S+)", _unknown_key),
    (r"arguments are required: ([\w., ]+)", _required),
    (r"Not a valid subclass of (\w+)", _no_class_path),
    (r"Expected an? <class '(?!NoneType)([\w.]+)'>", _wrong_type),
    (r"Errors:\s*- (.*?)\s*- Expected a <class 'NoneType'>", lambda found, *_: " ".join(found[1].split())),
    (r"Problems parsing config: (.*)", _bad_yaml),
    (
        r"Unexpected config: (.*)",
        lambda found, *_: "the configuration must be a YAML mapping with model, data, trainer.",
    ),
    (  # what jsonargparse does with the number 1022, which YAML makes of 17:2
        r"unsupported operand type\(s\) for \+: 'int' and 'str'",
        lambda found, *_: "a mapping lacks the space after a colon; write '{17: 2}', in quotes, not {17:2}.",
    ),
    (r"File does not exist: '?([^'\n]+)", lambda found, *_: f"{found[1]} does not exist."),
]


def _class_path(message: str) -> str | None:
    paths = re.findall(r"class_path '([\w.]+)'", message) + re.findall(
        r"Got value: Namespace\(class_path='([\w.]+)'", message
    )
    return paths[-1] if paths else None


def _classes_in(module: str) -> list[tuple[str, Any]]:
    try:
        return inspect.getmembers(importlib.import_module(module), inspect.isclass)
    except ImportError:
        return []


def _arguments_of(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    for other, found in _classes_in(module):
        if other == name:
            # With **kwargs a class takes what its parents take.
            names: list[str] = []
            for parent in inspect.getmro(found):
                parameters = inspect.signature(parent).parameters.values()
                names += [each.name for each in parameters if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
                if not any(each.kind == each.VAR_KEYWORD for each in parameters):
                    break
            return list(dict.fromkeys(names))
    return []


def _implementations(base: str) -> list[str]:
    """Class paths of the first public classes of memnet and tasks that fit where ``base`` does; none if many do."""
    paths = []
    for module in ("memnet", "tasks"):
        classes = dict(_classes_in(module))
        for name, found in classes.items():
            lineage = [parent.__name__ for parent in inspect.getmro(found)]
            if base in lineage and not inspect.isabstract(found):
                paths.append(f"{module}.{name}")
    return paths[:_SHOWN] if len(paths) <= _CLASSES else []


def _nearest(name: str, candidates: list[str]) -> str | None:
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    return near[0] if near else None


def _a(noun: str) -> str:
    return f"{'an' if noun[:1] in 'AEIOU' else 'a'} {noun}"

"""YAML as version 1.2 has it, its core schema: what people write means what it looks like.

PyYAML reads version 1.1, where 010 is 8, 1:30 is 90, no is false, 1e-1 is a word, and of two equal keys the first is
dropped without a word. Here 010 is 10 and 1e-1 a number; 1:30, a date and no are words; a key comes once. What `<<`
merges is still merged. Only what settings are made of: mappings, lists, words, numbers, true, false and null.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, ClassVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from ray_split.config.yaml_errors import NotYamlError, RefusedError, told

MOST_BYTES = 8 * 2**20
MOST_NODES = 200_000  # keys and values, each alias counted as what it stands for
DEEPEST = 50
LONGEST_NUMBER = 400  # digits
WIDEST = 2**30  # of a line: libyaml counts in an int

TAG = "tag:yaml.org,2002:"
INT = r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
FLOAT = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
CORE = (  # kind, what is one, and what it may begin with
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(f"^(?:{INT})$"), list("-+0123456789")),
    ("float", re.compile(f"^(?:{FLOAT})$"), list("-+.0123456789")),
    ("merge", re.compile(r"^(?:<<)$"), ["<"]),
)
YES_OR_NO = re.compile(r"^(?:yes|no|on|off)$", re.IGNORECASE)
"""Booleans to version 1.1. Where nothing else says which is meant, a word or a boolean, it is asked for."""

FREE = "kwargs"
"""Below it stands what functions are given, as it is: nothing says of what type it is to be."""


def read(text: str | bytes, free: bool = False) -> Any:
    """What a YAML document holds; None of an empty one. `free`: nothing says of what type its values are to be.

    Raises NotYamlError, in one line, for what is no YAML, or more of it than settings are.
    """
    if len(text) > MOST_BYTES:
        raise NotYamlError(
            f"is longer than {MOST_BYTES >> 20} MB", do="Settings are shorter: check that this is the file"
        )
    try:
        content = text if isinstance(text, str) else text.decode("utf-8-sig")
        _check_size(content)
        return _read(content, free)
    except UnicodeError as error:
        raise NotYamlError(f"is not text in UTF-8: {error}", do="Save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise told(error, content) from error


def line_of(text: str | bytes, path: Iterable[str]) -> int | None:
    """The line of a document that has a setting, by the names of its sections and its own; None if none has."""
    loader = _Loader(text)
    try:
        node, line = loader.get_single_node(), None
        for name in path:
            keys = {key.value: (key, value) for key, value in node.value} if isinstance(node, MappingNode) else {}
            if name not in keys:
                return None
            key, node = keys[name]
            line = key.start_mark.line + 1
        return line
    finally:
        loader.dispose()


def write(values: Any) -> str:
    """As YAML that reads back as the same, whether by version 1.1 or 1.2."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


def write_line(value: Any) -> str:
    """A value as YAML, in one line: `[a, b]`, `{lr: 0.1}`."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=True, width=WIDEST).strip()


def number(text: str) -> int | float | None:
    """The number that a word is; None if it is none."""
    if len(text) > LONGEST_NUMBER:
        return None
    if _PATTERNS["int"].match(text):
        return _whole(text)
    return _real(text) if _PATTERNS["float"].match(text) else None


_PATTERNS = {kind: pattern for kind, pattern, _ in CORE}


def _whole(text: str) -> int:
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _real(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _check_size(text: str) -> None:
    """See that it is neither deep nor large, aliases written out, before any of it is made."""
    sizes: dict[str, int] = {}  # of what has an anchor
    open_: list[tuple[str | None, int]] = []  # collections: the anchor, and the nodes before it
    nodes = 0
    for event in yaml.parse(text, Loader=_BASE):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise RefusedError(event, f"uses *{event.anchor}, which is not defined above (with &{event.anchor})")
            nodes += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            sizes |= {event.anchor: 1} if event.anchor else {}
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, nodes))
            nodes += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            sizes |= {anchor: nodes - before} if anchor else {}
        if nodes > MOST_NODES:
            problem = f"has more than {MOST_NODES} keys and values (each alias counted as what it stands for)"
            raise RefusedError(event, problem, whole=True)
        if len(open_) > DEEPEST:
            raise RefusedError(event, f"is nested deeper than {DEEPEST} levels")


def _read(text: str, free: bool) -> Any:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _check(loader, root, free, set())
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _check(loader: Any, node: Node, free: bool, seen: set[tuple[int, bool]]) -> None:
    """Every mapping has a key once, and nothing in what is free is a word and a boolean at once."""
    if (id(node), free) in seen:
        return
    seen.add((id(node), free))
    if isinstance(node, MappingNode):
        _check_keys(loader, node)
        for key, value in node.value:
            _check(loader, value, free or (isinstance(key, ScalarNode) and key.value == FREE), seen)
    elif isinstance(node, SequenceNode):
        for each in node.value:
            _check(loader, each, free, seen)
    elif (
        isinstance(node, ScalarNode)
        and free
        and not node.style
        and node.tag == f"{TAG}str"
        and YES_OR_NO.match(node.value)
    ):
        problem = f"has '{node.value}', which could be a word or a boolean"
        raise RefusedError(node, problem, f"Write true or false for a boolean, and '{node.value}' in quotes for a word")


def _check_keys(loader: Any, node: MappingNode) -> None:
    lines: dict[Any, int] = {}
    for key, _ in node.value:
        if not isinstance(key, ScalarNode):
            raise RefusedError(key, "has a key that is a list or a mapping", "Use a word or a number as the key")
        name = key.value if key.tag == f"{TAG}merge" else loader.construct_object(key)
        if name in lines:
            raise _twice(key, lines[name])
        lines[name] = key.start_mark.line + 1


def _twice(key: ScalarNode, first: int) -> RefusedError:
    line = key.start_mark.line + 1
    where = f"on line {line}" if line == first else f"on lines {first} and {line}"
    do = "Merge them into one, or delete one"
    return RefusedError(key, f"has {key.value!r:.80} twice, {where}", do, whole=True)


def _int(loader: Any, node: ScalarNode) -> int:
    return int(_number(loader, node, "int"))


def _float(loader: Any, node: ScalarNode) -> float:
    found = float(_number(loader, node, "float"))
    if math.isinf(found) and "inf" not in node.value.lower():
        raise RefusedError(node, f"has {node.value:.40}, which is larger than a number can be")
    return found


def _number(loader: Any, node: ScalarNode, kind: str) -> int | float:
    text = loader.construct_scalar(node)
    if len(text) > LONGEST_NUMBER:
        raise RefusedError(node, f"has a number of more than {LONGEST_NUMBER} digits")
    found = number(text)
    if found is None or (kind == "int" and not isinstance(found, int)):
        what = "whole number" if kind == "int" else "number"
        raise RefusedError(node, f"has {text!r:.80}, which is not a {what}")
    return found


def _unknown(_: Any, node: Node) -> None:
    allowed = "Settings are made of mappings, lists, text, numbers, true, false and null"
    raise RefusedError(node, f"has a value of the kind {node.tag:.80}", allowed)


def _implicit(cores: Iterable[tuple[str, re.Pattern[str], list[str]]]) -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    found: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for kind, pattern, first in cores:
        for letter in first:
            found.setdefault(letter, []).append((TAG + kind, pattern))
    return found


# libyaml's are many times as fast.
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BASE_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Loader(_BASE):  # type: ignore[misc]
    yaml_implicit_resolvers = _implicit(CORE)
    yaml_constructors: ClassVar[Any] = {
        f"{TAG}null": yaml.SafeLoader.construct_yaml_null,
        f"{TAG}bool": yaml.SafeLoader.construct_yaml_bool,
        f"{TAG}int": _int,
        f"{TAG}float": _float,
        f"{TAG}str": yaml.SafeLoader.construct_yaml_str,
        f"{TAG}seq": yaml.SafeLoader.construct_yaml_seq,
        f"{TAG}map": yaml.SafeLoader.construct_yaml_map,
        None: _unknown,
    }


class _Dumper(_BASE_DUMPER):  # type: ignore[misc]
    """Quotes what either version takes for something else than a word."""


for _kind, _pattern, _first in CORE:
    _Dumper.add_implicit_resolver(TAG + _kind, _pattern, _first)

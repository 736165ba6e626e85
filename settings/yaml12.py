"""Read YAML text as YAML 1.2 does, because three habits of YAML 1.1 turn settings into something else.

PyYAML follows YAML 1.1, in which `off` is False, `1e6` is text, `010` is eight and `1:30` is ninety. Here
`true` and `false` are the only booleans, `1e6` is a number, `010` is ten, and times and dates stay text.
A key that is given twice, which YAML 1.2 forbids and PyYAML lets pass, is an error.
"""

import re
from typing import Any

import yaml

from ..errors import ConfigError


def parse(text: str, where: str) -> Any:
    """Return the one document in `text` as dicts, lists and scalars.

    Args:
        text: YAML; tags that would build Python objects are refused.
        where: what the messages start with, such as the file name.

    Raises:
        ConfigError: the text is not YAML, or a mapping has a key twice; the message has the line number.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{where}{line}: {error.problem or 'not YAML'}; correct the YAML") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}; correct the YAML") from None


class _Loader(yaml.SafeLoader):
    """A SafeLoader with the scalars of the YAML 1.2 core schema, and unique keys."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 - PyYAML copies it on the first add_implicit_resolver

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge" or not isinstance(key_node, yaml.ScalarNode):
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                problem = f"key {key!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node).replace("_", "")
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)

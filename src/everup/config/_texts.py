"""What stands under the members of a class in its source: Python itself forgets those strings."""

import ast
import inspect
from itertools import pairwise
from typing import Any


def texts_of(table: type[Any]) -> dict[str, str]:
    """The docstring under each attribute that has one.

    Read only where texts are shown, in schema and reference: pydantic's
    ``use_attribute_docstrings`` would read the source at every start of everup.
    """
    (tree,) = ast.parse(inspect.getsource(table)).body
    assert isinstance(tree, ast.ClassDef)
    told: dict[str, str] = {}
    for member, text in pairwise(tree.body):
        match member:
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                    told[name] = inspect.cleandoc(str(text.value.value))
    return told

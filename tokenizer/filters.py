"""Filters on the rows of a token corpus: ``label in (3, 5) and caption is not null``.

A filter is written as a Python expression and never run as one: `ast` parses it, and the kinds of
node that are listed here become a `pyarrow.compute.Expression`; anything else is refused.

    operands     columns, numbers, text in quotes, true, false
    comparisons  ==  !=  <  <=  >  >=  in (...)  not in (...)  is null  is not null
    logic        and  or  not; a column of true and false stands for itself

A comparison with a null is neither true nor false, as in SQL, and only rows for which the whole
is true are taken. To add a comparison, list it in `COMPARISONS`.

Letters: N rows.
"""
import ast
import difflib
import functools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.acero as acero
import pyarrow.compute as pc

from tokenizer.tokens import TokenCorpus

COMPARISONS = {ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt,
               ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge}
CONSTANTS = {"null": None, "true": True, "false": False}
"""Names of values as other languages write them; Python's own are known as well."""

NUMBER, TEXT, TRUTH = "numbers", "text", "true or false"
KINDS = {bool: TRUTH, int: NUMBER, float: NUMBER, str: TEXT}
MAX_INTEGER = (1 << 63) - 1
MAX_PARTS = 1000
"""Comparisons and what they are joined to; pyarrow descends into them all, and many thousands end
the process."""
EXAMPLES = "such as: label in (3, 5) and caption is not null"


@dataclass(frozen=True)
class _Operand:
    """One side of a comparison.

    Attributes:
        kind: `NUMBER`, `TEXT` or `TRUTH`; nothing for null.
        text: as it was written.
        is_column: whether its values differ from row to row.
    """
    expression: pc.Expression
    kind: str | None
    text: str
    is_column: bool


@dataclass(frozen=True)
class RowFilter:
    """Which rows of a token corpus to take.

    Attributes:
        text: as it was written, for settings and messages.
        expression: the same for pyarrow: true, false or null for each row. It counts for no
            comparison of filters, as that of two expressions is an expression.
        columns: names of the columns that it reads, sorted.
    """
    text: str
    expression: pc.Expression = field(compare=False)
    columns: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, schema: pa.Schema) -> "RowFilter":
        """The filter that ``text`` describes.

        Args:
            schema: of the rows, as `TokenSpec.arrow_schema` gives it.
        Raises:
            ValueError: it is no such expression, or names a column that is not there or is of
                another type; the message shows the part, the rule and near names.
        """
        reader = _Reader(schema, text.strip())
        try:
            tree = ast.parse(text.strip(), mode="eval")
            _require_few_parts(tree, text)
            expression = reader.condition(tree.body)
        except SyntaxError as error:
            raise ValueError(f"the filter {_short(text)} cannot be read ({error.msg}); write an "
                             f"expression {EXAMPLES}; text stands in quotes, equal is ==, and "
                             f"columns are {', '.join(reader.known)}") from error
        except (RecursionError, MemoryError) as error:
            raise ValueError(f"the filter {_short(text)} is nested too deeply; use in (...) for "
                             "many values") from error
        if not reader.columns:
            raise ValueError(f"the filter {_short(text)} names no column; columns are "
                             f"{', '.join(reader.known)}")
        return cls(text.strip(), expression, tuple(sorted(reader.columns)))

    def mask(self, table: pa.Table) -> np.ndarray:
        """Which rows of a table are taken, bool ``(N,)``; evaluated on this thread alone."""
        project = acero.ProjectNodeOptions([self.expression], ["taken"])
        plan = acero.Declaration.from_sequence([
            acero.Declaration("table_source", acero.TableSourceNodeOptions(
                table.select(list(self.columns)))),
            acero.Declaration("project", project)])
        taken = plan.to_table(use_threads=False)["taken"]
        mask: np.ndarray = pc.fill_null(taken, False).to_numpy()
        return mask.astype(bool)  # no rows have no type

    def select(self, table: pa.Table) -> pa.Table:
        """The rows of a table that are taken, in order."""
        return table.filter(pa.array(self.mask(table)))

    def require_any(self, corpus: TokenCorpus) -> None:
        """Refuse to go on with nothing; reads until the first row that is taken.

        Raises:
            ValueError: there is none.
        """
        found = (table.num_rows for table in selected_tables(corpus, ["key"], self))
        self.require_rows(next(filter(None, found), 0), corpus.url)

    def require_rows(self, num_rows: int, url: str) -> None:
        """Refuse to go on with nothing.

        Args:
            num_rows: rows that the filter has taken of the corpus at ``url``.
        Raises:
            ValueError: there is none.
        """
        if not num_rows:
            raise ValueError(f"the filter {_short(self.text)} takes none of the rows of {url}; "
                             f"`img2tokens inspect {url}` shows classes and columns")


def selected_tables(corpus: TokenCorpus, columns: Sequence[str],
                    rows: RowFilter | None = None) -> Iterator[pa.Table]:
    """Some columns of the rows that a filter takes, or of all, shard by shard, in order.

    A shard of which no row is taken gives a table without rows.
    """
    needed = dict.fromkeys([*columns, *(rows.columns if rows else ())])
    for table in corpus.tables(list(needed)):
        yield (table if rows is None else rows.select(table)).select(list(columns))


class _Reader:
    """Turns nodes into expressions over the columns of one schema.

    Attributes:
        known: columns that can be compared.
        columns: those that were named.
    """

    def __init__(self, schema: pa.Schema, text: str) -> None:
        self._schema, self._text = schema, text
        self.known = [field.name for field in schema if _kind(field.type) is not None]
        self.columns: set[str] = set()

    def condition(self, node: ast.expr) -> pc.Expression:
        """A node that is true or false for each row."""
        if isinstance(node, ast.BoolOp):
            parts = map(self.condition, node.values)
            return functools.reduce(operator.and_ if isinstance(node.op, ast.And) else operator.or_,
                                    parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.condition(node.operand)
        if isinstance(node, ast.Compare):
            return self._comparisons(node)
        if (value := self._operand(node)).kind != TRUTH:
            raise self._error(node, "is neither true nor false; compare it with something")
        return value.expression

    def _comparisons(self, node: ast.Compare) -> pc.Expression:
        """``a < b < c``: each pair of neighbours."""
        sides = [node.left, *node.comparators]
        return functools.reduce(operator.and_, (
            self._comparison(left, test, right) for left, test, right in zip(
                sides, node.ops, node.comparators, strict=False)))

    def _comparison(self, left: ast.expr, test: ast.cmpop, right: ast.expr) -> pc.Expression:
        first = self._operand(left)
        if isinstance(test, ast.In | ast.NotIn):
            found = self._membership(first, right)
            return ~found if isinstance(test, ast.NotIn) else found
        second = self._operand(right)
        if isinstance(test, ast.Is | ast.IsNot):
            if second.kind is not None or not first.is_column:
                raise self._error(right, "cannot follow `is`: write COLUMN is null, or ==")
            is_null = first.expression.is_null()
            return ~is_null if isinstance(test, ast.IsNot) else is_null
        self._require_alike(first, second)
        compare: Any = COMPARISONS[type(test)]
        return compare(first.expression, second.expression)

    def _membership(self, first: _Operand, right: ast.expr) -> pc.Expression:
        if not isinstance(right, ast.Tuple | ast.List | ast.Set) or not right.elts:
            raise self._error(right, "cannot follow `in`: write values in brackets, as in (3, 5)")
        values: list[Any] = []
        for node in right.elts:
            value = self._operand(node)
            self._require_alike(first, value)
            values.append(self._constant(node))
        operand = first.expression
        if first.kind == NUMBER:  # which may be of several types, as isin may not
            operand, values = operand.cast(pa.float64()), [float(value) for value in values]
        found = operand.isin(pa.array(values))
        # pyarrow says false for a null; here that is unknown, as for every comparison.
        unknown = pc.scalar(pa.scalar(None, pa.bool_()))
        return pc.if_else(first.expression.is_null(), unknown, found)

    def _require_alike(self, first: _Operand, second: _Operand) -> None:
        for side, other in ((first, second), (second, first)):
            if side.kind is None:
                raise ValueError(f"nothing equals null in the filter {_short(self._text)}: write "
                                 f"{other.text} is null")
        if first.kind != second.kind:
            raise ValueError(f"{self._described(first)} and {self._described(second)} cannot be "
                             f"compared in the filter {_short(self._text)}"
                             + ("; text stands in quotes" if TEXT in (first.kind, second.kind)
                                else ""))

    def _described(self, operand: _Operand) -> str:
        if operand.is_column:
            return f"the column {operand.text} ({self._schema.field(operand.text).type})"
        return f"{operand.text} ({operand.kind})"

    def _operand(self, node: ast.expr) -> _Operand:
        if (name := self._name(node)) is not None:
            return self._column(name, node)
        value = self._constant(node)
        return _Operand(pc.scalar(value), KINDS.get(type(value)), ast.unparse(node), False)

    def _name(self, node: ast.expr) -> str | None:
        """The column that a node names: ``image_psnr``, also as ``image.psnr``."""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return f"{node.value.id}_{node.attr}"
        is_name = isinstance(node, ast.Name) and node.id not in CONSTANTS
        return node.id if is_name and isinstance(node, ast.Name) else None

    def _column(self, name: str, node: ast.expr) -> _Operand:
        if name not in self._schema.names:
            near = difflib.get_close_matches(name, self.known, n=3)
            hint = (f"did you mean {' or '.join(near)}?" if near else
                    f"columns are {', '.join(self.known)}.")
            raise ValueError(f"the corpus has no column {ast.unparse(node)}, which the filter "
                             f"{_short(self._text)} names; {hint} Text stands in quotes")
        kind = _kind(self._schema.field(name).type)
        if kind is None:
            raise ValueError(f"the column {name} holds {self._schema.field(name).type}, which a "
                             f"filter cannot compare; others are {', '.join(self.known)}")
        self.columns.add(name)
        return _Operand(pc.field(name), kind, name, True)

    def _constant(self, node: ast.expr) -> bool | int | float | str | None:
        """The value that a node writes out."""
        if isinstance(node, ast.Name) and node.id in CONSTANTS:
            return CONSTANTS[node.id]
        if (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
                and isinstance(node.operand, ast.Constant)
                and KINDS.get(type(node.operand.value)) == NUMBER):
            return -self._checked(node.operand)  # type: ignore[operator]
        if isinstance(node, ast.Constant) and (node.value is None or type(node.value) in KINDS):
            return self._checked(node)
        raise self._error(node, "is no part of a filter; write an expression " + EXAMPLES)

    def _checked(self, node: ast.Constant) -> bool | int | float | str | None:
        """A constant that pyarrow can hold."""
        value = node.value
        if isinstance(value, int) and value > MAX_INTEGER:
            raise self._error(node, f"is greater than {MAX_INTEGER}, the greatest integer")
        if isinstance(value, str) and _has_surrogates(value):
            raise self._error(node, "is no text: it holds half of a surrogate pair")
        return value  # type: ignore[return-value]

    def _error(self, node: ast.expr, rule: str) -> ValueError:
        part = ast.unparse(node)
        where = "" if part == self._text else f" in the filter {_short(self._text)}"
        return ValueError(f"{_short(part)}{where} {rule}")


def _require_few_parts(tree: ast.Expression, text: str) -> None:
    found = sum(len(node.values if isinstance(node, ast.BoolOp) else node.ops)
                for node in ast.walk(tree) if isinstance(node, ast.BoolOp | ast.Compare))
    if found > MAX_PARTS:
        raise ValueError(f"the filter {_short(text)} has {found} parts, more than {MAX_PARTS}; use "
                         "in (...) for many values")


def _kind(column: pa.DataType) -> str | None:
    """What a column holds, or nothing where it cannot be compared."""
    if pa.types.is_boolean(column):
        return TRUTH
    if pa.types.is_string(column):
        return TEXT
    return NUMBER if pa.types.is_integer(column) or pa.types.is_floating(column) else None


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _short(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 120 else f"{text[:117]}...")

"""Athena in the emulator, by DuckDB: views that last, JSON tables as Glue describes them, partitions that are projected, saved queries.

Each function is a patch (`local.aws.emulator_patches` lists them). A query that DuckDB cannot run fails; none is answered without data.
"""

# ruff: noqa: SLF001, ARG001, ARG005, S608  (patches reach into ministack and keep its signatures; the queries are the laptop's own user's)
# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

from ministack.services import athena, glue
from ministack.services.cloudformation import provisioners

from local.aws.patching import PatchError, replace

Record = dict[str, Any]

SAVED = "AWS::Athena::NamedQuery"
VIEW = re.compile(r"\s*CREATE\s+(OR\s+REPLACE\s+)?VIEW\s+(\w+)\s+AS\s+(.+)", re.IGNORECASE | re.DOTALL)
PRESTO = re.compile(r"/\* Presto View: (\S+) \*/")
DEPTH = 8  # of views that are made of views
SCALARS = {
    "string": "VARCHAR", "int": "INTEGER", "bigint": "BIGINT", "double": "DOUBLE", "boolean": "BOOLEAN", "date": "DATE",
    "timestamp": "TIMESTAMP",
}  # fmt: skip
COPY = r"^.*/ministack-athena-[^/]+/"  # where a query's objects are copied to, whatever the run


def queries_read_data() -> None:
    """Without DuckDB a query is answered with a value that nobody stored; with this it fails and says what is missing."""
    if not hasattr(athena, "ATHENA_ENGINE"):
        raise PatchError("ministack's Athena has no engine to choose")
    athena.ATHENA_ENGINE = "duckdb"


def views_are_kept() -> None:
    """Each query has a database of its own, which ends with it: a view that one made is unknown to the next."""

    def keeping(original: Any) -> Any:
        async def run(query: str, database: str, catalog: str | None = None) -> Record:
            made = VIEW.fullmatch(query.strip().rstrip(";"))
            if made is None:
                return await original(_with_views(query, database), database, catalog)
            replacing, name, text = made.groups()
            described = await original(f"SELECT * FROM ({_with_views(text, database)}) LIMIT 0", database, catalog)
            _keep_view(database, name, text, described, replacing=bool(replacing))
            return {"columns": [], "rows": [], "column_types": []}

        return run

    replace(athena, "_run_duckdb", keeping)


def _keep_view(database: str, name: str, text: str, described: Record, *, replacing: bool) -> None:
    """The Glue table that Athena makes of a view."""
    if replacing and f"{database}/{name}" in glue._tables:
        glue._delete_table({"DatabaseName": database, "Name": name})
    columns = [{"Name": column, "Type": kind} for column, kind in zip(described["columns"], described["column_types"], strict=True)]
    document = {"originalSql": text, "catalog": "awsdatacatalog", "schema": database, "columns": columns}
    status, _, body = glue._create_table(
        {
            "DatabaseName": database,
            "TableInput": {
                "Name": name,
                "TableType": "VIRTUAL_VIEW",
                "Parameters": {"presto_view": "true", "comment": "Presto View"},
                "StorageDescriptor": {"Columns": columns},
                "ViewOriginalText": f"/* Presto View: {base64.b64encode(json.dumps(document).encode()).decode()} */",
                "ViewExpandedText": "/* Presto View */",
            },
        }
    )
    if status >= 300:
        raise ValueError(json.loads(body)["message"])


def _with_views(query: str, database: str) -> str:
    """`query` with each view that it names in brackets, those of views too."""
    for _ in range(DEPTH):
        found = [(reference, text) for reference in athena._table_references(query) if (text := _view(reference, database))]
        if not found:
            return query
        for reference, text in reversed(found):
            alias = "" if reference.aliased else f" AS {reference.table}"
            query = f"{query[: reference.start]}({text}){alias}{query[reference.end :]}"
    raise ValueError(f"views are nested more than {DEPTH} deep")


def _view(reference: Any, database: str) -> str | None:
    table = glue._tables.get(f"{reference.database or database}/{reference.table}") or {}
    kept = PRESTO.fullmatch(table.get("ViewOriginalText") or "")
    return json.loads(base64.b64decode(kept[1]))["originalSql"] if kept else None


def tables_are_what_glue_says() -> None:
    """What lies beside projected partitions is read as well; columns of JSON are guessed, and its days and `$path` are missing."""

    def described(original: Any) -> Any:
        def relation(table: Record, files: list[str]) -> str:
            _, pattern = _partitions(table)
            inside = [file for file in files if re.match(pattern, file)]
            if not inside:
                return _no_rows(table)
            return _json_relation(table, inside) if athena._data_format(table) == "json" else original(table, inside)

        return relation

    replace(athena, "_table_relation", described)
    replace(athena, "_empty_relation", lambda original: _no_rows)


def _no_rows(table: Record) -> str:
    """A table without objects, lists and records of its columns included."""
    described = [*table["StorageDescriptor"]["Columns"], *(table.get("PartitionKeys") or [])]
    types = {column["Name"]: _duckdb_type(column["Type"]) for column in described}
    if athena._data_format(table) == "json":
        types["$path"] = "VARCHAR"
    cells = ", ".join(f'CAST(NULL AS {kind}) AS "{name}"' for name, kind in types.items())
    return f"(SELECT {cells} WHERE FALSE)"


def _partitions(table: Record) -> tuple[list[str], str]:
    """The projected keys of a table, and what the path of its files begins with, a group per key."""
    location = _location(table)
    template = (table.get("Parameters") or {}).get("storage.location.template", location).removeprefix(location)
    return re.findall(r"\$\{(\w+)\}", template), COPY + re.sub(r"\$\{\w+\}", "([^/]+)", template)


def _location(table: Record) -> str:
    return str(table["StorageDescriptor"]["Location"]).rstrip("/") + "/"


def _json_relation(table: Record, files: list[str]) -> str:
    storage = table["StorageDescriptor"]
    columns = ", ".join(f"'{column['Name']}': '{_duckdb_type(column['Type'])}'" for column in storage["Columns"])
    read = f"read_json({athena._sql_list(files)}, format = 'newline_delimited', columns = {{{columns}}}, filename = '__file')"
    keys, pattern = _partitions(table)
    projected = "".join(f", regexp_extract(__file, '{pattern}', {n}) AS {key}" for n, key in enumerate(keys, start=1))
    # In two pieces: ministack takes a whole address for one that it must read
    path = f"'s3:/' || regexp_replace(__file, '{COPY}', '{_location(table).removeprefix('s3:/')}')"
    return f'(SELECT * EXCLUDE (__file){projected}, {path} AS "$path" FROM {read})'


def _duckdb_type(kind: str) -> str:
    """A Hive type as DuckDB writes it."""
    if kind in SCALARS:
        return SCALARS[kind]
    nested = re.fullmatch(r"(array|map|struct)<(.*)>", kind)
    if nested is None:
        raise ValueError(f"a column of type {kind} is not readable here")
    parts = list(_split(nested[2]))
    if nested[1] == "array":
        return f"{_duckdb_type(parts[0])}[]"
    if nested[1] == "map":
        return f"MAP({_duckdb_type(parts[0])}, {_duckdb_type(parts[1])})"
    fields = (part.split(":", 1) for part in parts)
    return "STRUCT(" + ", ".join(f'"{name}" {_duckdb_type(of)}' for name, of in fields) + ")"


def _split(text: str) -> Iterator[str]:
    """The parts between commas that are inside of no other type."""
    depth, start = 0, 0
    for n, letter in enumerate(text):
        depth += (letter == "<") - (letter == ">")
        if letter == "," and depth == 0:
            yield text[start:n]
            start = n + 1
    yield text[start:]


def saved_queries_are_kept() -> None:
    """A template with a saved query is refused whole, and the query that it saves cannot be found and run."""

    def create(logical: str, properties: Record, stack: str) -> tuple[str, Record]:
        made = json.loads(athena._create_named_query(properties)[2])["NamedQueryId"]
        return made, {"NamedQueryId": made}

    def update(physical: str, old: Record, new: Record, stack: str) -> tuple[str, Record]:
        athena._delete_named_query({"NamedQueryId": physical})
        return create("", new, stack)

    def delete(physical: str, properties: Record) -> None:
        athena._delete_named_query({"NamedQueryId": physical})

    if SAVED in provisioners._RESOURCE_HANDLERS:
        raise PatchError(f"ministack knows {SAVED} now; take this patch out")
    provisioners._RESOURCE_HANDLERS[SAVED] = {"create": create, "update": update, "delete": delete}

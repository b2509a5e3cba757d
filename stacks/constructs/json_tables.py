"""Tables over JSON lines, whose partitions are projected, so that nothing has to be crawled or added."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import Stack
from aws_cdk import aws_glue as glue

Columns = tuple[tuple[str, str], ...]


def struct(columns: Columns) -> str:
    return f"struct<{','.join(f'{name}:{kind}' for name, kind in columns)}>"


def add_json_table(
    stack: Stack,
    construct_id: str,
    *,
    name: str,
    description: str,
    columns: Columns,
    location: str,
    template: str,
    partitions: Mapping[str, Mapping[str, str]],
    database_name: str,
) -> glue.CfnTable:
    """Add the table; `template` is where a partition lies, and `partitions` name -> its projection without the prefix."""
    column = glue.CfnTable.ColumnProperty
    projections = {
        f"projection.{partition}.{key}": value for partition, projection in partitions.items() for key, value in projection.items()
    }
    return glue.CfnTable(
        stack,
        construct_id,
        catalog_id=stack.account,
        database_name=database_name,
        table_input=glue.CfnTable.TableInputProperty(
            name=name,
            description=description,
            table_type="EXTERNAL_TABLE",
            partition_keys=[column(name=partition, type="string") for partition in partitions],
            parameters={
                "classification": "json",
                "projection.enabled": "true",
                **projections,
                "storage.location.template": template,
            },
            storage_descriptor=glue.CfnTable.StorageDescriptorProperty(
                location=location,
                columns=[column(name=name, type=kind) for name, kind in columns],
                input_format="org.apache.hadoop.mapred.TextInputFormat",
                output_format="org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
                serde_info=glue.CfnTable.SerdeInfoProperty(
                    serialization_library="org.openx.data.jsonserde.JsonSerDe",
                    # Symbols are keys of maps, and stay in capitals
                    parameters={"case.insensitive": "false"},
                ),
            ),
        ),
    )

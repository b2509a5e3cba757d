"""The audit bucket for who must read it: tables whose days need no crawler, a query of their columns alone, and who may write there."""

from __future__ import annotations

import json
import re
from typing import Any

from stacks.constructs.audit_tables import ORDER_TRACE, TABLES
from tests.infrastructure.assembly import Assembly, Resource


def tables(aws: Assembly) -> dict[str, Resource]:
    """The tables of the lake stack, by name."""
    found = (resource["Properties"]["TableInput"] for stack, _, resource in aws.resources("AWS::Glue::Table") if stack == "lake")
    return {table["Name"]: table for table in found}


def grants(aws: Assembly, role: str) -> dict[str, list[str]]:
    """Action -> what it is allowed on, each as the text of its ARN, of the role in the trading stack whose id begins so."""
    allowed: dict[str, list[str]] = {}
    for name, resource in aws.templates["trading"]["Resources"].items():
        if resource["Type"] == "AWS::IAM::Policy" and name.startswith(role):
            for statement in resource["Properties"]["PolicyDocument"]["Statement"]:
                for action in _listed(statement["Action"]):
                    allowed.setdefault(action, []).extend(json.dumps(one) for one in _listed(statement["Resource"]))
    assert allowed, f"{role} has no policy"
    return allowed


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def of_audit(resources: list[str]) -> list[str]:
    """The paths in the audit bucket that are among `resources`."""
    inside = (one for one in resources if "OutputFnGetAttAudit" in one)
    return sorted(match[1] for one in inside if (match := re.search(r'"(/[^"]*)"', one)))


def test_each_folder_of_the_audit_bucket_is_a_table_whose_days_need_no_crawler(aws: Assembly) -> None:
    assert tables(aws).keys() == TABLES.keys()
    for name, table in tables(aws).items():
        storage, parameters = table["StorageDescriptor"], table["Parameters"]
        location = json.dumps(storage["Location"])
        assert f"/audit/{name}/" in location
        assert '"Ref": "Audit' in location
        assert storage["SerdeInfo"]["SerializationLibrary"] == "org.openx.data.jsonserde.JsonSerDe"
        assert storage["SerdeInfo"]["Parameters"] == {"case.insensitive": "false"}, "symbols are keys of maps"
        assert [column["Name"] for column in table["PartitionKeys"]] == ["day"]
        assert (parameters["projection.enabled"], parameters["projection.day.format"]) == ("true", "yyyy-MM-dd")
        assert json.dumps(parameters["storage.location.template"]).endswith(f'/audit/{name}/${{day}}/"]]}}')
        assert [(column["Name"], column["Type"]) for column in storage["Columns"]] == list(TABLES[name][1])
        assert all(column["Name"] == column["Name"].lower() for column in storage["Columns"])


def test_the_query_names_only_columns_that_exist(aws: Assembly) -> None:
    (resource,) = (found for stack, _, found in aws.resources("AWS::Athena::NamedQuery") if stack == "lake")
    assert resource["Properties"]["QueryString"] == ORDER_TRACE
    assert resource["Properties"]["Database"] == "papertape"
    aliases = dict(re.findall(r"(?:FROM|JOIN) (\w+) (\w)\b", ORDER_TRACE))
    known = {alias: {"day", *dict(TABLES["orders" if name == "latest" else name][1])} for name, alias in aliases.items()}
    known["o"] |= {"newest"}
    assert set(known) == {"o", "b", "d", "m"}
    used = re.findall(r"\b([obdm])\.(\w+)(?:\.(\w+))?", ORDER_TRACE)
    assert len(used) > 30
    for alias, column, member in used:
        assert column in known[alias], f"{alias}.{column}"
        if member:
            kind = dict(TABLES["decisions"][1])[column]
            assert f"{member}:" in kind, f"{alias}.{column}.{member}"


def test_the_query_goes_all_the_way_back() -> None:
    selected = ORDER_TRACE.partition("SELECT\n")[2].partition("FROM latest")[0]
    chain = ("client_order_id", "risk_verdict", "decision_id", "observation_hash", "model_package", "model_hash", "gate_passed",
             "manifest_sha256", "executor_code_version", "decide_code_version", "training_code_version")  # fmt: skip
    assert not [name for name in chain if not re.search(rf"\b{name}\b", selected)]


def test_writers_of_the_audit_bucket_only_add_and_its_reader_only_reads(aws: Assembly) -> None:
    writes = {role: of_audit(grants(aws, role).get("s3:PutObject", [])) for role in ("Decide", "ExecuteOrders", "Control", "Reconcile")}
    archived = [f"/audit/{table}/*" for table in sorted(TABLES) if table != "decisions"]
    assert writes == {"Decide": ["/audit/decisions/*"], "ExecuteOrders": [], "Control": [], "Reconcile": archived}
    reads = {role: of_audit(grants(aws, role).get("s3:GetObject", [])) for role in ("Decide", "ExecuteOrders", "Control", "Reconcile")}
    assert reads == {"Decide": [], "ExecuteOrders": [], "Control": ["/audit/decisions/*", "/audit/models/*"], "Reconcile": []}
    for _, _, policy in aws.resources("AWS::IAM::Policy"):
        document = json.dumps(policy["Properties"]["PolicyDocument"])
        assert "s3:BypassGovernanceRetention" not in document
        assert "s3:PutObjectRetention" not in document


def test_what_a_trace_reads_beside_the_audit_is_the_packages_own(aws: Assembly) -> None:
    for role, read in (("Control", {"evaluation/evaluation.json", "model/model.tar.gz"}), ("Reconcile", {"evaluation/evaluation.json"})):
        allowed = grants(aws, role)
        models = {match[1] for one in allowed["s3:GetObject"] if (match := re.search(r"/models/\*/([^\"]*)", one))}
        assert models == read, role
        (packages,) = allowed["sagemaker:DescribeModelPackage"]
        assert ":model-package/papertape/*" in packages
        assert not [action for action in allowed if action.startswith("sagemaker:") and action != "sagemaker:DescribeModelPackage"]
    assert all(one.count("manifest.json") == 1 for one in grants(aws, "Reconcile")["s3:GetObjectVersion"])

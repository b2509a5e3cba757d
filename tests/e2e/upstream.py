"""What unpatched ministack does at each place that the patches of `local/aws` take hold of; runs in the emulator's environment.

`python -m tests.e2e.upstream` prints one JSON object: {patch: "" or why the patch is no longer what it says}. A check fails when upstream
has moved what the patch takes hold of, and when upstream has put it right, so that the patch can go.
"""

from __future__ import annotations

import inspect
import io
import json
import re
import threading
import time
import traceback
import zipfile
from collections.abc import Callable
from typing import Any

import ministack.app as app
from ministack.core import iam_evaluator, lambda_runtime, persistence, router
from ministack.core.responses import request_scope
from ministack.services import (
    apigateway_v1,
    athena,
    cloudwatch,
    dynamodb,
    ecs,
    eventbridge,
    firehose,
    glue,
    kinesis,
    lambda_svc,
    s3,
    scheduler,
    sns,
    sqs,
)
from ministack.services.cloudformation import provisioners

ACCOUNT, REGION = "000000000000", "us-east-1"
H = provisioners._RESOURCE_HANDLERS


def config(name: str) -> dict[str, Any]:
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
    return {"FunctionName": name, "FunctionArn": arn, "Runtime": "python3.11", "Handler": "handler.handler", "Timeout": 20}


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def own_schedulers_are_off() -> None:
    scheduler.start_scheduler()
    eventbridge.start_scheduler()
    assert {"eb-scheduler", "evb-scheduler-ticker"} <= {thread.name for thread in threading.enumerate()}


def schedules_keep_their_time_zone() -> None:
    properties = {"Name": "s", "ScheduleExpression": "rate(1 day)", "ScheduleExpressionTimezone": "America/New_York"}
    H["AWS::Scheduler::Schedule"]["create"]("S", properties, "stack")
    assert scheduler._schedules["default/s"]["ScheduleExpressionTimezone"] == "UTC"
    assert H["AWS::Scheduler::Schedule"]["update"]


def events_carry_the_replays_time() -> None:
    assert abs(eventbridge._now_ts() - time.time()) < 5
    assert "int(_now_ts())" in inspect.getsource(eventbridge._put_events)


def gateway_does_not_throttle() -> None:
    assert "_check_throttle(" in inspect.getsource(apigateway_v1)
    limits = {"rateLimit": 1, "burstLimit": 1}
    assert [apigateway_v1._take_token("slot", limits) for _ in range(2)] == [True, False]


def rules_invoke_functions_asynchronously() -> None:
    assert parameters(eventbridge._dispatch_to_lambda) == ["arn", "payload"]
    assert "invoke_async_with_retry" not in inspect.getsource(eventbridge._dispatch_to_lambda)
    assert parameters(lambda_svc.invoke_async_with_retry) == ["func", "event"]


def events_take_turns() -> None:
    assert parameters(lambda_svc._execute_function) == ["func", "event"]
    assert "_execute_function(func, event)" in inspect.getsource(lambda_svc.invoke_async_with_retry)
    crowd = [lambda_runtime.acquire_worker("crowd", config("crowd"), b"")[1] for _ in range(20)]
    assert crowd == ["spawn"] * 20


def invocations_are_counted() -> None:
    assert parameters(lambda_svc._execute_function_dispatch) == ["func", "config", "event", "request_id", "started"]
    assert "_execute_function_dispatch(func, config, event, request_id, started)" in inspect.getsource(lambda_svc._execute_function)
    assert "_deliver_to_lambda" in inspect.getsource(sns._fanout)


def log_lines_become_metrics() -> None:
    directive = {"Namespace": "Upstream", "Dimensions": [[]], "Metrics": [{"Name": "M"}]}
    line = json.dumps({"_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}, "M": 1})
    lambda_svc._emit_lambda_logs({"config": config("emf")}, "id", line, False, 1)
    assert not any(key[0] == "Upstream" for key in cloudwatch._metrics)
    assert parameters(cloudwatch._store_datum) == ["namespace", "name", "dims", "ts", "unit", "value", "values", "counts", "stat_values"]


def every_call_has_lambda_metrics() -> None:
    assert lambda_svc._execute_function({"config": config("unmeasured")}, {})["body"]["statusCode"] == 200
    assert not any(key[2] == "FunctionName=unmeasured" for key in cloudwatch._metrics)
    assert parameters(lambda_svc._emit_lambda_metrics) == ["function_name", "duration_ms", "error", "throttle"]


def dead_letters_are_measured() -> None:
    H["AWS::SQS::Queue"]["create"]("Q", {"QueueName": "q"}, "stack")
    arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:q"
    lambda_svc._route_async_failure(arn, "f", {}, {"error": True, "body": {}})
    assert len(sqs._queue_by_arn(arn)["messages"]) == 1
    assert not any(key[0] == "AWS/SQS" for key in cloudwatch._metrics)


def alarms_read_their_own_metrics() -> None:
    plain = {
        "MetricName": "Errors", "Namespace": "N", "Dimensions": [{"Name": "f", "Value": "b"}], "Statistic": "Sum", "Period": 60,
        "EvaluationPeriods": 1, "Threshold": 1, "ComparisonOperator": "GreaterThanOrEqualToThreshold",
    }  # fmt: skip
    alarm = provisioners._cw_metric_alarm_record("a", plain)
    cloudwatch.record_metric("N", "Errors", 5, "Count", {"f": "a"})
    cloudwatch._evaluate_alarm(alarm)
    assert alarm["StateValue"] == "ALARM", "another function's metric rings it"
    try:
        provisioners._cw_metric_alarm_record("a", {**plain, "Metrics": [{"Id": "x"}]})
    except ValueError:
        return
    raise AssertionError("metric math is accepted now")


def archives_are_unpacked_once() -> None:
    spawning = inspect.getsource(lambda_runtime.Worker._spawn)
    assert " zf.extractall(code_dir)" in spawning
    assert " lzf.extractall(layer_dir)" in spawning
    assert "_LAMBDA_LAYERS_DIRS" not in lambda_runtime._RESERVED_RUNTIME_ENV_VARS
    assert '"_LAMBDA_LAYERS_DIRS"' in lambda_runtime._PYTHON_WORKER_SCRIPT


def logs_end_at_a_marker() -> None:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("handler.py", "def handler(event, context):\n    return event\n")
    worker = lambda_runtime.Worker("silent", config("silent"), raw.getvalue())
    try:
        worker.invoke({}, "first")
        started = time.monotonic()
        assert worker.invoke({"a": 1}, "second")["result"] == {"a": 1}
        assert time.monotonic() - started > 0.045, "a silent call is no longer slow"
    finally:
        worker.kill()


def unknown_types_are_recorded() -> None:
    assert not {"AWS::Budgets::Budget", "AWS::Cognito::UserPoolUser"} & H.keys()


def sagemaker_is_a_service() -> None:
    assert "sagemaker" not in app.SERVICE_HANDLERS
    assert not any(name.startswith("AWS::SageMaker::") for name in H)
    assert app.detect_service is router.detect_service


def queries_read_data() -> None:
    assert athena.ATHENA_ENGINE == "auto"
    assert athena._mock_query_results("SELECT a FROM b")["rows"] == [["mock_value"]]


def views_are_kept() -> None:
    assert parameters(athena._run_duckdb) == ["query", "database", "catalog"]
    assert 'duckdb.connect(":memory:")' in inspect.getsource(athena._run_duckdb)
    assert "view" not in inspect.getsource(athena._parse_ddl).lower()
    (reference,) = athena._table_references("SELECT 1 FROM a.b")
    assert (reference.database, reference.table, reference.start, reference.end, reference.aliased) == ("a", "b", 14, 17, False)


def tables_are_what_glue_says() -> None:
    table = {"Parameters": {"classification": "json"}, "StorageDescriptor": {"Columns": [{"Name": "a", "Type": "map<string,double>"}]}}
    assert athena._table_relation(table, ["/tmp/b.json"]).startswith("read_json_auto(")
    assert "AS VARCHAR)" in athena._empty_relation(table)
    assert 'tempfile.mkdtemp(prefix="ministack-athena-")' in inspect.getsource(athena._materialize_table_files)


def saved_queries_are_kept() -> None:
    assert "AWS::Athena::NamedQuery" not in H
    assert parameters(athena._create_named_query) == ["data"]


def spark_jobs_run() -> None:
    glue._jobs["spark"] = {"Command": {"Name": "glueetl", "ScriptLocation": "s3://nowhere/job.py"}}
    run = json.loads(glue._start_job_run({"JobName": "spark"})[2])["JobRunId"]
    deadline = time.monotonic() + 60
    while (state := json.loads(glue._get_job_run({"JobName": "spark", "RunId": run})[2])["JobRun"]["JobRunState"]) != "SUCCEEDED":
        assert time.monotonic() < deadline, f"a job without a script is {state} now"
        time.sleep(0.01)
    assert parameters(glue._execute_subprocess) == ["run", "job", "args", "resolved"]


def tasks_run_as_processes() -> None:
    assert ecs._get_docker() is None
    source = inspect.getsource(ecs)
    asked = ("containers.run(create_image, **run_kwargs)", "containers.get(", "images.pull(", "images.get(", "images.get_registry_data(")
    assert [call for call in asked if call not in source] == []
    assert set(re.findall(r"container\.(\w+)\(", source)) - {"get"} == {"reload", "logs", "stop", "remove", "wait"}
    ecs._register_task_definition({"family": "f", "containerDefinitions": [{"name": "c", "image": "i", "command": ["false"]}]})
    ecs._create_cluster({"clusterName": "k"})
    (task,) = json.loads(ecs._run_task({"cluster": "k", "taskDefinition": "f"})[2])["tasks"]
    assert task["lastStatus"] == "RUNNING", "of what nobody runs"
    assert 'host = "host.docker.internal"' in source


def messages_are_kept() -> None:
    assert parameters(sns._fanout)[:4] == ["topic_arn", "msg_id", "message", "subject"]
    assert "(stub)" in inspect.getsource(sns._fanout)


def execute_api_checks_signatures() -> None:
    forged = f"AWS4-HMAC-SHA256 Credential={ACCOUNT}/20200102/{REGION}/execute-api/aws4_request, SignedHeaders=host, Signature=00"
    refused = app._enforce_execute_api("a", "v1", "POST", "/orders", {"authorization": forged, "host": "h"}, {})
    assert refused is None, "a forged signature is refused now"
    assert parameters(app._handle_execute_api_request)[:6] == ["host", "path", "method", "headers", "body", "query_params"]


def cloudfront_reads_its_buckets_over_tls() -> None:
    statement = {"Action": "s3:GetObject", "Resource": "arn:aws:s3:::shell/*"}
    reads = {**statement, "Effect": "Allow", "Principal": {"Service": "cloudfront.amazonaws.com"}}
    demands = {**statement, "Effect": "Deny", "Principal": "*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    asked = (ACCOUNT, "shell", "index.html", f"arn:aws:cloudfront::{ACCOUNT}:distribution/1", "")
    with request_scope(ACCOUNT, REGION):
        for statements, allowed in (([reads], True), ([reads, demands], False)):
            s3._bucket_policies["shell"] = json.dumps({"Version": "2012-10-17", "Statement": statements})
            assert s3._cloudfront_origin_allows(*asked) is allowed
        del s3._bucket_policies["shell"]
    assert iam_evaluator._request_origin.get() == ("127.0.0.1", False)


def shards_deliver_as_lambda_does() -> None:
    poller = inspect.getsource(lambda_svc._poll_kinesis)
    ignored = ("MaximumBatchingWindow", "batchItemFailures", "Bisect", "MaximumRetryAttempts", "MaximumRecordAge", "DestinationConfig")
    assert not [word for word in ignored if word in poller], "the poller reads a mapping's settings now"
    assert "_poll_kinesis()" in inspect.getsource(lambda_svc._poll_loop)
    assert parameters(lambda_svc._execute_function) == ["func", "event"]
    assert inspect.getsource(lambda_svc._iter_all_esms).count("yield") == 1
    mapping = {"EventSourceArn": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/s", "MaximumRetryAttempts": 2}
    made, _ = H["AWS::Lambda::EventSourceMapping"]["create"]("M", {**mapping, "FunctionName": "nobody"}, "stack")
    assert lambda_svc._esms[made]["MaximumRetryAttempts"] == 2


def shard_records_are_spooled() -> None:
    source = inspect.getsource(kinesis)
    assert "open(" not in source
    assert '"PutRecords": _put_records,' in source
    assert "_expire_records(stream)" in inspect.getsource(kinesis._put_records)
    assert 'shard["records"] = [r for r in shard["records"]' in inspect.getsource(kinesis._expire_records)
    kinesis._create_stream({"StreamName": "s", "ShardCount": 1})
    kinesis._streams["s"]["StreamStatus"] = "ACTIVE"
    data = {"StreamName": "s", "Records": [{"PartitionKey": "p", "Data": "YQ=="}] * 2}
    results = json.loads(kinesis._put_records(data)[2])["Records"]
    (shard,) = kinesis._streams["s"]["shards"].values()
    assert [one["SequenceNumber"] for one in shard["records"]] == [one["SequenceNumber"] for one in results]
    assert len(next(iter(kinesis.get_state()["streams"]["s"]["shards"].values()))["records"]) == 2, "a state has no records now"
    assert parameters(app._load_persisted_state) == []


def delivery_streams_buffer() -> None:
    source = inspect.getsource(firehose)
    assert not [word for word in ("gzip.", '"GZIP":', "zlib") if word in inspect.getsource(firehose._deliver_to_s3)]
    assert '"PutRecordBatch": _put_record_batch,' in source
    assert "_deliver_records_to_s3(stream, dest, [(record_id, decoded)])" in inspect.getsource(firehose._put_record_batch)
    assert 'dest["records"].append' in inspect.getsource(firehose._put_record_batch), "records are not kept for ever now"
    assert parameters(firehose._deliver_records_to_s3) == ["stream", "dest", "records"]
    assert parameters(firehose._apply_lambda_processors) == ["stream", "dest", "records", "metadata_sink", "partition_sink"]
    assert parameters(firehose._evaluate_prefix) == ["template", "t", "query_keys", "lambda_keys", "error_type"]
    assert parameters(firehose._deliver_to_s3) == ["stream", "dest", "record_data", "lambda_keys"]


def state_holds_what_was_counted() -> None:
    assert "papertape" not in app._state_map
    assert "_loaded_modules.get(mod_name)" in inspect.getsource(app._build_persistence_save_dict)


def state_is_saved_whole() -> None:
    source = inspect.getsource(persistence)
    assert "os.fsync" not in source
    assert 'logger.error("Persistence: failed to save' in source
    assert "save_all(_build_persistence_save_dict())" in inspect.getsource(app)
    assert "load_state(state_key)" in inspect.getsource(app._load_persisted_state)
    assert persistence._state_format_version("dynamodb")
    assert callable(persistence._json_default)
    assert callable(persistence._json_object_hook)


def table_writes_are_journaled() -> None:
    assert "await" not in inspect.getsource(dynamodb.handle_request), "a journaled write is carried out again in one go"
    assert parameters(dynamodb.handle_request) == ["method", "path", "headers", "body", "query_params"]
    assert "save_state" not in inspect.getsource(dynamodb)
    assert "fsync" not in inspect.getsource(s3._atomic_write)
    assert parameters(s3._atomic_write) == ["fpath", "data", "text"]


def control_routes_are_served() -> None:
    assert "hypercorn_serve(app, config)" in inspect.getsource(app.main)
    assert parameters(app.app) == ["scope", "receive", "send"]


HELPERS = (config, parameters)
CHECKS = [value for value in list(vars().values()) if inspect.isfunction(value) and value.__module__ == __name__ and value not in HELPERS]


def main() -> None:
    results = {}
    with request_scope(ACCOUNT, REGION):
        for check in CHECKS:
            try:
                check()
                results[check.__name__] = ""
            except Exception:  # noqa: BLE001 - whatever went wrong is the result
                results[check.__name__] = traceback.format_exc(limit=-2)
    print(json.dumps(results))


if __name__ == "__main__":
    main()

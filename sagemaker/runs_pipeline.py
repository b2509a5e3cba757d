"""The pipeline `<app>-runs` as data: one processing job that does the run whose id is the parameter `Run`.

`runs_definition()` is pure, as `definition()` of pipeline.py is: CDK tokens pass through it, and it asks nobody. The job's only input is
the archive of the code with the deployed settings (learning/packaging.py, `runs_archive`): `papertape.runs` reads the run's folder in the
bucket itself and writes there while it works, so that what it says can be read at once and a job that dies has left its checkpoint. There
is no output for the same reason.
A job that Amazon's own fault ends starts again and goes on from the checkpoint; a fault of the code is written to the folder and ends it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEMA = "2020-12-01"
RUN = "Run"
#: What stands there until an execution names its run: an execution without one fails at once, for there is no such folder.
NO_RUN = "no-such-run"
CODE, UNPACKED = "/opt/ml/processing/input/code", "/opt/ml/processing/code"
BOOTSTRAP = (
    f'set -e; mkdir -p "{UNPACKED}"; cd "{UNPACKED}"; tar -xzf "{CODE}"/*; python -m pip install -qr requirements.txt; '
    'exec python -m papertape.runs "$@"'
)


def runs_definition(
    *,
    role_arn: str,
    bucket: str,
    source_uri: str,
    image: str,
    instance_type: str,
    volume_gb: int,
    max_seconds: int,
    retries: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Build the pipeline definition, JSON-ready.

    role_arn       the role that the job runs under
    bucket         the processed bucket, which holds the folders of runs
    source_uri     s3:// URI of the archive of the code, whatever its base name
    image          container image URI
    instance_type  what the job runs on, with `volume_gb` of disk, for `max_seconds` at most
    retries        when the service starts the job again, as pipeline.py has it for every job
    """
    step = {
        "Name": RUN,
        "Type": "Processing",
        "Arguments": {
            "ProcessingResources": {"ClusterConfig": {"InstanceType": instance_type, "InstanceCount": 1, "VolumeSizeInGB": volume_gb}},
            "AppSpecification": {
                "ImageUri": image,
                "ContainerEntrypoint": ["bash", "-c", BOOTSTRAP, "papertape.runs"],
                "ContainerArguments": ["--run", {"Get": f"Parameters.{RUN}"}, "--bucket", bucket, "--settings", "settings.json"],
            },
            "RoleArn": role_arn,
            "ProcessingInputs": [
                {
                    "InputName": "code",
                    "S3Input": {
                        "S3Uri": source_uri,
                        "LocalPath": CODE,
                        "S3DataType": "S3Prefix",
                        "S3InputMode": "File",
                        "S3DataDistributionType": "FullyReplicated",
                        "S3CompressionType": "None",
                    },
                }
            ],
            "StoppingCondition": {"MaxRuntimeInSeconds": max_seconds},
        },
        "RetryPolicies": list(retries),
    }
    return {
        "Version": SCHEMA,
        "Metadata": {},
        "Parameters": [{"Name": RUN, "Type": "String", "DefaultValue": NO_RUN}],
        "Steps": [step],
    }

"""The deployed app as the loop sees it: the local cloud's schedules, the broker's calendar, the alert topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from lambdas.common.broker.port import Broker, BrokerError
from local.paper.schedules import DeployedSchedule, deployed_schedules
from local.replay.local_deployment import LocalDeployment, LocalDeploymentError
from schema.exchange_time import new_york_date
from schema.slot import AGENT, Slot, decision_id_of

#: What SageMaker's stand-in says of an execution that ended with its process.
STOPPED = "the emulator was stopped while it ran"


class PaperApp:
    """Over a deployment and the account that it trades."""

    def __init__(self, deployment: LocalDeployment, *, broker: Broker) -> None:
        self._deployment, self._broker = deployment, broker
        self._prefix = deployment.settings.name

    def schedules(self) -> tuple[DeployedSchedule, ...]:
        """The deployed schedules, with the expressions and time zones of their templates."""
        scheduler = self._deployment.client("scheduler")
        documents = [scheduler.get_schedule(Name=name) for name in self._deployment.schedules()]
        return deployed_schedules(documents, prefix=self._prefix, schedule=self._deployment.settings.schedule)

    def fire(self, schedule: str, time: str, *, final: bool) -> Mapping[str, Any]:
        """Fire one schedule; a feature job is waited for, because training reads what it writes."""
        if schedule == "build_features":
            try:
                manifest = self._deployment.build_features(time=time)
            except LocalDeploymentError as error:
                return {"status": "failed", "error": str(error)}
            return {"status": "succeeded", "payload": {"rows": manifest["rows"]}}
        return self._deployment.fire(f"{self._prefix}-{schedule}", time, final=final)

    def backfill(self, *, start: str) -> Mapping[str, Any]:
        try:
            return {"status": "succeeded", "payload": self._deployment.backfill(start=start)}
        except LocalDeploymentError as error:
            return {"status": "failed", "error": str(error)}

    def training_interrupted(self) -> bool:
        """Whether the newest training ended because the local cloud did."""
        sagemaker = self._deployment.client("sagemaker")
        listed = sagemaker.list_pipeline_executions(PipelineName=self._deployment.output("PipelineName"))["PipelineExecutionSummaries"]
        if not listed:
            return False
        newest = max(listed, key=lambda one: one["StartTime"])
        described = sagemaker.describe_pipeline_execution(PipelineExecutionArn=newest["PipelineExecutionArn"])
        return bool(described.get("FailureReason") == STOPPED)

    def undecided(self, moment: datetime, slot: str) -> bool:
        """Whether that day's `slot` has no decision and the market opens on that day; where the broker cannot say, it is assumed to."""
        day = new_york_date(moment)
        if self._deployment.ledger.decision(decision_id_of(AGENT, Slot(day, slot))) is not None:
            return False
        try:
            return any(session.date == day for session in self._broker.sessions(day, day))
        except BrokerError:
            return True

    def publish(self, *, subject: str, message: str) -> None:
        topic = self._deployment.output("AlertTopicArn")
        self._deployment.client("sns").publish(TopicArn=topic, Subject=f"{self._prefix}: {subject}"[:100], Message=message)

    def published(self) -> Sequence[Mapping[str, Any]]:
        return self._deployment.cloud.published()

    def save(self) -> None:
        self._deployment.cloud.save()

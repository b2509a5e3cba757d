"""Comprehend's batch call, which no emulator here has: moto answers NEUTRAL to one text and refuses a batch.

The stub is built from the service's own model (`tests.contract_stub`): botocore checks each request and the stub each answer against it.
The limits that the model does not carry (25 texts, 5,000 bytes, the languages) are enforced as the service documents them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from moto import mock_aws

from lambdas.common.sentiment.comprehend import LANGUAGES, ComprehendScorer, cost_usd, cut
from lambdas.common.sentiment.paid import MonthlyBudget
from lambdas.common.sentiment.port import Scorable
from schema.news import Sentiment
from tests.contract_stub import ContractStub, Refusal

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def labelled(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The service, as far as its limits go: "good" is positive, "bad" negative, "odd" cannot be scored."""
    if len(params["TextList"]) > 25:
        raise Refusal("BatchSizeLimitExceededException")
    if any(len(text.encode()) > 5_000 for text in params["TextList"]):
        raise Refusal("TextSizeLimitExceededException")
    if params["LanguageCode"] not in LANGUAGES:
        raise Refusal("UnsupportedLanguageException")
    results, errors = [], []
    for index, text in enumerate(params["TextList"]):
        if "odd" in text:
            errors.append({"Index": index, "ErrorCode": "INTERNAL_SERVER_ERROR", "ErrorMessage": "cannot"})
            continue
        label = "Positive" if "good" in text else "Negative" if "bad" in text else "Neutral"
        shares = {name: 0.91 if name == label else 0.03 for name in ("Positive", "Negative", "Neutral", "Mixed")}
        results.append({"Index": index, "Sentiment": label.upper(), "SentimentScore": shares})
    return {"ResultList": results[::-1], "ErrorList": errors}  # results come by index, in no promised order


def scored(answer: Answer, *texts: Scorable | str, usd: float = 2.0) -> tuple[list[Sentiment], ContractStub, ComprehendScorer]:
    stub = ContractStub("comprehend", "BatchDetectSentiment", answer)
    scorer = ComprehendScorer(client=stub.client, budget=MonthlyBudget(monthly_usd=usd, before=0.0), sleep=lambda _: None)
    return scorer.score([text if isinstance(text, Scorable) else Scorable(text=text) for text in texts]), stub, scorer


def test_sixty_texts_travel_in_three_calls_and_come_back_in_order() -> None:
    found, stub, scorer = scored(labelled, *(f"{'good' if number % 3 else 'bad'} {number}" for number in range(60)))
    assert [len(request["TextList"]) for request in stub.requests] == [25, 25, 10]
    assert [each.label for each in found] == ["positive" if number % 3 else "negative" for number in range(60)]
    assert found[1].positive == pytest.approx(0.91)
    assert found[1].confidence == pytest.approx(0.88)
    assert (found[1].model, found[1].version, found[1].flag) == ("comprehend", "2017-11-27", None)
    assert scorer.spent_usd == pytest.approx(60 * 0.0003)


@pytest.mark.parametrize("character", ["🚀", "é", "漢", "a", "ש"])
def test_a_text_is_cut_between_two_characters(character: str) -> None:
    found, stub, _ = scored(labelled, "good" + character * 1_000_000)
    (sent,) = stub.requests[0]["TextList"]
    assert 4_997 <= len(sent.encode()) <= 5_000
    assert set(sent[4:]) == {character}
    assert found[0].label == "positive"


def test_half_a_surrogate_pair_is_not_sent() -> None:
    assert cut("good \ud83d news") == "good ? news"


def test_each_language_has_its_own_calls_and_one_that_is_not_known_none() -> None:
    texts = [Scorable(text="good", language=language) for language in ("en", "de", "tlh", "en")]
    found, stub, _ = scored(labelled, *texts)
    assert [(request["LanguageCode"], len(request["TextList"])) for request in stub.requests] == [("en", 2), ("de", 1)]
    assert [each.flag for each in found] == [None, None, "refused", None]


def test_an_empty_text_is_not_sent() -> None:
    found, stub, scorer = scored(labelled, "", " \n", "good")
    assert [each.flag for each in found] == ["empty", "empty", None]
    assert stub.requests[0]["TextList"] == ["good"]
    assert scorer.spent_usd == pytest.approx(0.0003)


def test_a_text_that_the_service_could_not_score_is_flagged_and_costs_no_other_its_score() -> None:
    found, _, _ = scored(labelled, "good", "odd", "bad")
    assert [(each.label, each.flag) for each in found] == [("positive", None), ("neutral", "refused"), ("negative", None)]


def test_a_batch_that_is_refused_for_one_text_is_asked_in_halves() -> None:
    def picky(params: Mapping[str, Any]) -> Mapping[str, Any]:
        if "poison" in params["TextList"]:
            raise Refusal("InvalidRequestException")
        return labelled(params)

    found, _, scorer = scored(picky, *["good"] * 10, "poison", *["bad"] * 10)
    assert [each.flag for each in found] == [None] * 10 + ["refused"] + [None] * 10
    assert scorer.spent_usd == pytest.approx(20 * 0.0003)  # what was refused costs nothing


@pytest.mark.parametrize("code", ["ThrottlingException", "TooManyRequestsException", "InternalServerException"])
def test_what_passes_is_waited_out(code: str) -> None:
    tries: list[int] = []

    def busy_twice(params: Mapping[str, Any]) -> Mapping[str, Any]:
        tries.append(1)
        if len(tries) < 3:
            raise Refusal(code)
        return labelled(params)

    found, _, scorer = scored(busy_twice, "good")
    assert found[0].label == "positive"
    assert len(tries) == 3
    assert scorer.spent_usd == pytest.approx(0.0003)


def test_what_does_not_pass_flags_this_batch_and_all_later_ones(caplog: pytest.LogCaptureFixture) -> None:
    def busy_after_one(params: Mapping[str, Any]) -> Mapping[str, Any]:
        if "late" in params["TextList"][0]:
            raise Refusal("ThrottlingException")
        return labelled(params)

    found, stub, scorer = scored(busy_after_one, *["good"] * 25, *["late"] * 50)
    assert [each.flag for each in found] == [None] * 25 + ["scorer_down"] * 50
    assert len(stub.requests) == 1 + 4
    assert scorer.spent_usd == pytest.approx(25 * 0.0003)
    (line,) = [record for record in caplog.records if record.message == "scorer-down"]
    assert "ThrottlingException" in line.__dict__["reason"]


def test_a_missing_permission_is_not_asked_for_again() -> None:
    def denied(_: Mapping[str, Any]) -> Mapping[str, Any]:
        raise Refusal("AccessDeniedException")

    found, stub, scorer = scored(denied, "good", "bad")
    assert [each.flag for each in found] == ["scorer_down"] * 2
    assert len(stub.requests) == 1
    assert scorer.spent_usd == 0


@pytest.mark.parametrize(
    ("error", "tries_paid"),
    [(ReadTimeoutError(endpoint_url="https://x"), 4), (EndpointConnectionError(endpoint_url="https://x"), 0)],
)
def test_a_try_whose_outcome_is_not_known_counts_as_paid_for(error: Exception, tries_paid: int) -> None:
    def silent(_: Mapping[str, Any]) -> Mapping[str, Any]:
        raise error

    found, stub, scorer = scored(silent, "good")
    assert found[0].flag == "scorer_down"
    assert len(stub.requests) == 4
    assert scorer.spent_usd == pytest.approx(tries_paid * 0.0003)


@pytest.mark.parametrize("share", [float("nan"), 1.5, -0.1])
def test_an_answer_that_the_service_does_not_describe_is_not_believed(share: float) -> None:
    shares = {"Positive": share, "Negative": 0.0, "Neutral": 0.0, "Mixed": 0.0}
    found, _, _ = scored(
        lambda _: {"ResultList": [{"Index": 0, "Sentiment": "POSITIVE", "SentimentScore": shares}], "ErrorList": []}, "good"
    )
    assert found[0].flag == "scorer_down"


def test_a_text_that_the_answer_leaves_out_is_flagged() -> None:
    found, _, _ = scored(lambda _: {"ResultList": [], "ErrorList": []}, "good")
    assert found[0].flag == "refused"


@pytest.mark.parametrize(("length", "units"), [(1, 3), (300, 3), (301, 4), (5_000, 50)])
def test_a_text_costs_its_hundreds_of_characters_and_three_at_least(length: int, units: int) -> None:
    assert cost_usd("x" * length) == pytest.approx(units * 0.0001)


def test_the_cap_stops_before_it_is_passed_and_the_rest_is_flagged() -> None:
    found, stub, scorer = scored(labelled, *["good"] * 60, usd=0.0003 * 31 + 1e-9)
    assert [each.flag for each in found] == [None] * 31 + ["budget_spent"] * 29
    assert all(each.label == "neutral" and each.confidence == 0 for each in found[31:])
    assert scorer.spent_usd == pytest.approx(31 * 0.0003)
    assert sum(len(request["TextList"]) for request in stub.requests) == 31


def test_what_the_month_has_spent_before_counts() -> None:
    stub = ContractStub("comprehend", "BatchDetectSentiment", labelled)
    scorer = ComprehendScorer(client=stub.client, budget=MonthlyBudget(monthly_usd=2.0, before=2.0))
    assert scorer.score([Scorable(text="good")])[0].flag == "budget_spent"
    assert stub.requests == []


def test_moto_would_not_do() -> None:
    """Why the stub is there; when this fails, moto can take its place."""
    with mock_aws():
        client = boto3.client("comprehend", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
        assert client.detect_sentiment(Text="a terrible loss", LanguageCode="en")["Sentiment"] == "NEUTRAL"
        with pytest.raises(NotImplementedError):
            client.batch_detect_sentiment(TextList=["a terrible loss"], LanguageCode="en")

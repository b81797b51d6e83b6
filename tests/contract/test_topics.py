"""deploy/topics.yaml says who reads what; the workers are asked whether it is true."""

import importlib

import pytest

from servicekit import delivery, host, topics

SERVICES = ("case", "agreement", "dialer", "notify", "import")


@pytest.mark.parametrize("service", SERVICES)
def test_a_worker_consumes_exactly_the_topics_that_list_it(service: str) -> None:
    module = importlib.import_module(f"{service}_service.worker")
    (worker,) = {
        found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, host.Worker) and found is not host.Worker
    }
    listed = {topic.name for topic in topics.catalog().by_name.values() if service in topic.consumers}
    assert set(delivery.handlers(worker)) == listed


def test_every_service_publishes_to_one_topic() -> None:
    producers = [topic.producer for topic in topics.catalog().by_name.values() if topic.producer != "any"]
    assert sorted(producers) == sorted(SERVICES)

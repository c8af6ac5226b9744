"""A run that begins on cluster.yaml's cluster without a worker."""

from __future__ import annotations

from typing import Any

import pytest

from tests.programs import printed_by

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_ray")]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What tests/deploy/autoscaled.py prints."""
    return printed_by("tests.deploy.autoscaled", str(tmp_path_factory.mktemp("autoscaled")))


def test_the_run_asks_for_its_nodes_and_they_go_when_it_is_over(found: dict[str, Any]) -> None:
    assert found["error"] is None
    assert found["before"] == ["head"]
    assert found["during"] == ["client", "head", "server"]
    assert found["after"] == ["head"]


def test_each_role_is_on_the_node_that_is_labelled_for_it(found: dict[str, Any]) -> None:
    """By what they ask for: nothing here places by label."""
    assert found["roles"] == {"Client": ["client", "client"], "Server": ["server"], "FedServer": ["head"]}

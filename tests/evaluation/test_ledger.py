"""The ledger says which key chooses another folder, and never to delete results."""

from pathlib import Path

import pytest

from robot_rl.errors import ConfigError
from robot_rl.evaluation.ledger import Ledger
from robot_rl.evaluation.summary import EvaluationMeta


def test_results_of_another_evaluation_are_kept_and_another_folder_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    Ledger(path, EvaluationMeta(task="reach", policy_id="one", env={}))
    before = path.read_text()
    with pytest.raises(
        ConfigError, match=r"another output folder \(`evaluate\.out=<folder>`.*stay as they are"
    ) as told:
        Ledger(path, EvaluationMeta(task="reach", policy_id="other", env={}))
    assert "delete" not in str(told.value)
    assert path.read_text() == before

"""The examples of the pages on torch, Lightning and sharded checkpoints run as printed."""

from pathlib import Path

import pytest

from pages import run_page


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized:UserWarning")
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")
@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("page", "count"), [("docs/torch.md", 6), ("docs/lightning.md", 1), ("docs/distributed-checkpoint.md", 1)]
)
def test_examples_of_the_page_run_as_printed(page: str, count: int, tmp_path: Path) -> None:
    assert run_page(page, tmp_path) == count

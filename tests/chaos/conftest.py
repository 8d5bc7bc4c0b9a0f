"""What the trials share: uninterrupted runs to compare with, made once a session."""
import chaos
import pytest


@pytest.fixture(scope="session")
def references(tmp_path_factory):
    return chaos.References(str(tmp_path_factory.mktemp("references")))


@pytest.fixture
def trial(references, tmp_path):
    """Run a trial; returns its line of the table."""
    def run(plan):
        line = chaos.run_trial(plan, str(tmp_path / "trial"), references)
        assert line["result"] == "ok", line
        return line
    return run
